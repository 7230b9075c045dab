"""Manifests of deployments: their shape, and that hospitals only call out. They were not run here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from common.runtime.release import ROOT, version
from server.commands import COMMANDS as SERVER

DEPLOY = ROOT / "configs" / "deploy"
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def closed(**fields):
    """An object with these fields and no other: a misspelled one is an error."""
    return {"type": "object", "properties": fields, "additionalProperties": False}


def many(items):
    return {"type": "array", "items": items, "minItems": 1}


NAMED = closed(name=TEXT, labels={"type": "object", "additionalProperties": TEXT})
CHOSEN = closed(matchLabels={"type": "object", "additionalProperties": TEXT})
PROBE = closed(exec=closed(command=many(TEXT)), initialDelaySeconds=WHOLE, periodSeconds=WHOLE, timeoutSeconds=WHOLE)
LOCKED = closed(
    allowPrivilegeEscalation={"const": False},
    readOnlyRootFilesystem={"const": True},
    capabilities={"const": {"drop": ["ALL"]}},
)
CONTAINER = closed(
    name=TEXT,
    image={"const": f"fedgraft:{version()}"},
    command=many(TEXT),
    args=many(TEXT),
    securityContext=LOCKED,
    ports=many(closed(name=TEXT, containerPort=WHOLE)),
    resources=closed(requests=closed(cpu=TEXT, memory=TEXT), limits=closed(memory=TEXT)),
    livenessProbe=PROBE,
    volumeMounts=many(closed(name=TEXT, mountPath=TEXT, readOnly={"type": "boolean"})),
) | {"required": ["name", "image", "securityContext", "volumeMounts"]}
POD = closed(
    automountServiceAccountToken={"const": False},
    enableServiceLinks={"const": False},
    securityContext=closed(
        runAsNonRoot={"const": True},
        runAsUser=WHOLE,
        fsGroup=WHOLE,
        seccompProfile={"const": {"type": "RuntimeDefault"}},
    ),
    terminationGracePeriodSeconds=WHOLE,
    initContainers=many(CONTAINER),
    containers=many(CONTAINER | {"required": [*CONTAINER["required"], "livenessProbe", "resources", "args"]}),
    volumes=many(
        closed(
            name=TEXT,
            persistentVolumeClaim=closed(claimName=TEXT, readOnly={"type": "boolean"}),
            secret=closed(secretName=TEXT, defaultMode=WHOLE),
            emptyDir=closed(sizeLimit=TEXT),
        )
    ),
) | {"required": ["automountServiceAccountToken", "securityContext", "containers", "volumes"]}
PORTS = many(closed(protocol={"enum": ["TCP", "UDP"]}, port=WHOLE) | {"required": ["protocol", "port"]})
PEERS = many(closed(ipBlock=closed(cidr={"pattern": r"^[\d.]+/\d+$"}), namespaceSelector=CHOSEN))
SPECS = {
    "Deployment": (
        "apps/v1",
        closed(
            replicas={"const": 1},
            strategy={"const": {"type": "Recreate"}},
            selector=CHOSEN,
            template=closed(metadata=NAMED, spec=POD),
        ),
    ),
    "NetworkPolicy": (
        "networking.k8s.io/v1",
        closed(
            podSelector=CHOSEN,
            policyTypes={"const": ["Ingress", "Egress"]},
            ingress=many(closed(ports=PORTS)),
            egress=many(closed(ports=PORTS, to=PEERS)),
        ),
    ),
    "PersistentVolumeClaim": (
        "v1",
        closed(accessModes={"const": ["ReadWriteOnce"]}, resources=closed(requests=closed(storage=TEXT))),
    ),
    "Service": (
        "v1",
        closed(
            type={"const": "LoadBalancer"},
            externalTrafficPolicy=TEXT,
            selector={"type": "object"},
            ports=many(closed(name=TEXT, port=WHOLE, targetPort=TEXT, protocol={"const": "TCP"})),
        ),
    ),
}


def manifests(name):
    found = list(yaml.safe_load_all((DEPLOY / "kubernetes" / f"{name}.yml").read_text()))
    return {document["kind"]: document for document in found}


@pytest.mark.parametrize("name", ["coordinator", "hospital"])
def test_every_field_is_one_that_the_api_has_and_names_meet(name):
    for kind, document in manifests(name).items():
        api, spec = SPECS[kind]
        shape = closed(apiVersion={"const": api}, kind={"const": kind}, metadata=NAMED, spec=spec)
        jsonschema.validate(document, shape | {"required": ["apiVersion", "kind", "metadata", "spec"]})
    pod = manifests(name)["Deployment"]["spec"]
    labels = pod["template"]["metadata"]["labels"]
    assert (
        labels
        == pod["selector"]["matchLabels"]
        == manifests(name)["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    )
    volumes = {volume["name"] for volume in pod["template"]["spec"]["volumes"]}
    containers = [*pod["template"]["spec"]["containers"], *pod["template"]["spec"].get("initContainers", [])]
    assert {mount["name"] for one in containers for mount in one["volumeMounts"]} == volumes
    claims = {
        v["persistentVolumeClaim"]["claimName"]
        for v in pod["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    }
    assert manifests(name)["PersistentVolumeClaim"]["metadata"]["name"] in claims


def test_nothing_connects_to_a_hospital_and_the_coordinator_connects_to_nobody():
    hospital, coordinator = manifests("hospital"), manifests("coordinator")
    assert "Service" not in hospital
    assert "ports" not in hospital["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    closed_in = hospital["NetworkPolicy"]["spec"]
    assert "ingress" not in closed_in
    assert [port["port"] for rule in closed_in["egress"] for port in rule["ports"]] == [8443, 53, 53]
    assert "egress" not in coordinator["NetworkPolicy"]["spec"]
    assert coordinator["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8443}]}]
    [fleet] = coordinator["Deployment"]["spec"]["template"]["spec"]["containers"][0]["ports"]
    [outside] = coordinator["Service"]["spec"]["ports"]
    assert (fleet["containerPort"], outside["port"], outside["targetPort"]) == (8443, 8443, fleet["name"])


@pytest.mark.parametrize("name", ["coordinator", "hospital"])
def test_manifests_and_compose_start_the_same_commands(name):
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    [container] = manifests(name)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == compose[name]["command"] and container["args"][1] in SERVER
    assert container["livenessProbe"]["exec"]["command"] == compose[name]["healthcheck"]["test"][1:]
    assert compose[name]["read_only"] is True and compose[name]["cap_drop"] == ["ALL"]


def test_the_slurm_file_is_a_script_with_options_that_exist():
    path = DEPLOY / "simulation.sbatch"
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    options = re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", path.read_text(), re.MULTILINE)
    known = "job-name nodes ntasks cpus-per-task mem time signal requeue open-mode output"
    assert [name for name, _ in options] == known.split() and dict(options)["nodes"] == "1"
    assert path.read_text().count("#SBATCH") == len(options)
    for file in (path, *sorted((DEPLOY / "kubernetes").glob("*.yml"))):
        assert "Not run here." in file.read_text().split("\n\n")[0], Path(file).name
