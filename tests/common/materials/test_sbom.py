"""The bill of materials: valid CycloneDX, every library that is needed, and under which licence the weights are."""

from __future__ import annotations

import json
from importlib.metadata import version as installed

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from client.__main__ import main as client
from common.config.run import BackboneSpec
from common.materials.libraries import direct_requirements, libraries_of
from common.materials.licences import licence_of
from common.materials.sbom import sbom
from common.materials.weights import Weights

RELEASED = licence_of(BackboneSpec(config="released", weights="CT-CLIP_v2.pt"))


@pytest.fixture(scope="module")
def libraries():
    return libraries_of(direct_requirements())


def document(libraries, weights):
    return sbom(libraries, weights, version="0.1.0", release="f" * 64, time="2026-11-28T12:00:00Z")


def test_it_is_valid_by_the_standards_own_schema(libraries):
    weights = [
        Weights("ct_clip released", "a" * 64, RELEASED),
        Weights("adapter tumor", "b" * 64, RELEASED, base="a" * 64),
        Weights("unetr small", "c" * 64, licence_of(BackboneSpec(kind="unetr", config="small", weights="x.pt"))),
    ]
    found = document(libraries, weights)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found)) is None
    refs = [one["bom-ref"] for one in found["components"]]
    assert len(set(refs)) == len(refs)
    assert {ref for one in found["dependencies"] for ref in one["dependsOn"]} <= set(refs)
    assert {"ref": refs[-2], "dependsOn": [refs[-3]]} in found["dependencies"], "an adapter stands on its base"


def test_what_libraries_need_is_in_it_with_the_installed_version(libraries):
    by_name = {one.name: one for one in libraries}
    assert {"torch", "monai", "peft", "flwr", "numpy"} <= by_name.keys()
    assert by_name["torch"].version == installed("torch") and "numpy" in by_name["monai"].needs
    assert "ray" in by_name, "flwr is asked for with its simulation extra"
    assert not {"ruff", "mypy", "mkdocs-material"} & by_name.keys(), "tools of developers do not run at a hospital"
    assert (by_name["httpx"].licence, by_name["httpx"].purl) == ("BSD License", f"pkg:pypi/httpx@{installed('httpx')}")


def test_an_adapter_on_ct_clip_says_that_its_base_is_non_commercial():
    assert RELEASED.spdx == "CC-BY-NC-SA-4.0"
    assert RELEASED.sentence == (
        "Its base is ct_clip released under CC-BY-NC-SA-4.0, so it is for non-commercial use only, and shared alike."
    )
    assert licence_of(BackboneSpec()).sentence == "Its base is ct_clip mini under Apache-2.0."
    assert licence_of(BackboneSpec(config="released", random_seed=1)).spdx == "Apache-2.0", "numbers from a seed"
    assert "does not know" in licence_of(BackboneSpec(kind="unetr", config="small", weights="x.pt")).sentence


def test_equal_contents_have_equal_serial_numbers(libraries):
    one, other = document(libraries, []), document(libraries[1:], [])
    assert one["serialNumber"] == document(libraries, [])["serialNumber"] != other["serialNumber"]


def test_the_command_writes_both_and_a_folder_that_is_no_bank_is_one_sentence(tmp_path, capsys):
    out, licences = tmp_path / "sbom.json", tmp_path / "licences.md"
    assert client(["sbom", "--out", str(out), "--licences", str(licences)]) == 0
    assert "Its base is ct_clip mini under Apache-2.0." in capsys.readouterr().out
    assert json.loads(out.read_text())["components"][-1]["type"] == "machine-learning-model"
    assert f"| httpx | {installed('httpx')} | BSD License |" in licences.read_text()
    assert client(["sbom", str(tmp_path), "--out", str(out)]) == 2
    assert "is neither a run folder nor an exported bank" in capsys.readouterr().err
