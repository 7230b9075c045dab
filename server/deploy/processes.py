"""The coordinator's processes: SuperLink, executor and nginx, started hardened, watched and started again."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import FedgraftError
from common.files import write_bytes, write_json
from common.plugins import INHERITED, files_of, find
from common.runtime.health import check_serving
from common.runtime.processes import (
    Process,
    last_lines,
    program,
    start_process,
    stop_processes,
    terminated_is_interrupted,
)
from common.runtime.release import ROOT, own_digest
from server.deploy.certificates import days_left
from server.deploy.folder import Deployment

STARTUP_S = 120.0
WATCH_S = 0.5
PAUSE_S = 3.0
ENROLMENT_S = 5.0  # how often new hospitals are looked for
WARN_DAYS = 30
NGINX_TEMPLATE = ROOT / "configs" / "deploy" / "nginx.conf"


def serve(deployment: Deployment, *, say: Callable[[str], None] = print) -> None:
    """Run the coordinator's processes until stopped (Ctrl-C, SIGTERM); each that ends is started again.

    A SuperLink that ended takes its ServerApp with it: Flower marks that run failed, and `server run` resumes it.
    """
    release = own_digest(plugins=files_of(deployment.config.plugins, folder=deployment.path))
    _warn_of_certificate(deployment, say)
    write_nginx(deployment)
    address = f"{deployment.config.name}:{deployment.config.public_port}"
    say(f"release {release[:12]}; hospitals reach {address}; logs {deployment.logs}")
    running: dict[str, Process] = {}
    with terminated_is_interrupted():
        try:
            while True:
                _start_missing(deployment, running, release=release, say=say)
                ended = _watch(deployment, running)
                if ended != "nginx":
                    ended_with = [running.pop(name) for name in ("executor", "superlink") if name in running]
                    stop_processes(ended_with)
                else:
                    stop_processes([running.pop("nginx")])
                say(f"{ended} ended and starts again: {last_lines(deployment.logs / f'{ended}.log', 1)}")
                time.sleep(PAUSE_S)
        except KeyboardInterrupt:
            say("stopping")
        finally:
            stop_processes([running[name] for name in ("nginx", "executor", "superlink") if name in running])


def superlink_command(deployment: Deployment) -> list[str]:
    """Flower's SuperLink as this project starts it: loopback, TLS, known keys only, no dependency installation."""
    command = [program("flower-superlink"), "--host", "127.0.0.1", "--port", str(deployment.config.link_port)]
    command += ["--ssl-certfile", str(deployment.certificate), "--ssl-keyfile", str(deployment.key)]
    command += ["--ssl-ca-certfile", str(deployment.authority), "--enable-supernode-auth"]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(deployment.secret)]
    command += ["--disable-runtime-dependency-installation", "--database", str(deployment.database)]
    return [*command, "--health-server-address", f"127.0.0.1:{deployment.config.health_port}"]


def executor_command(deployment: Deployment, *, release: str, parent: int) -> list[str]:
    """Our executor, which runs the ServerApp of this checkout."""
    command = [
        sys.executable,
        "-c",
        "from server.deploy.executor import main; main()",
        "--runtime-api-address",
        deployment.link,
    ]
    command += ["--secret", str(deployment.secret), "--root-certificates", str(deployment.authority)]
    return [*command, "--release", release, "--parent-pid", str(parent)]


def write_nginx(deployment: Deployment) -> Path:
    """The proxy's configuration for this deployment, from ``configs/deploy/nginx.conf``."""
    values = {
        "NAME": deployment.config.name,
        "PUBLIC_PORT": str(deployment.config.public_port),
        "LINK": deployment.link,
        "CERTIFICATE": str(deployment.certificate),
        "KEY": str(deployment.key),
        "AUTHORITY": str(deployment.authority),
        "HOME": str(deployment.home),
        "LOGS": str(deployment.logs),
    }
    text = NGINX_TEMPLATE.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    write_bytes(deployment.path / "nginx.conf", text.encode())
    (deployment.home / "nginx").mkdir(parents=True, exist_ok=True)
    return deployment.path / "nginx.conf"


def nginx_program() -> str:
    """Debian's nginx, which is not on an ordinary user's path. Raises FedgraftError where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FedgraftError(
            "nginx is not installed: `apt-get install nginx-light`, or set proxy: false in server.yaml and let your "
            "own proxy serve what nginx.conf in the coordinator's folder serves."
        )
    return found


def health(deployment: Deployment) -> None:
    """Raise FedgraftError unless the SuperLink serves, nginx lets hospitals through and the certificate is valid."""
    import ssl
    import urllib.error
    import urllib.request

    check_serving(f"127.0.0.1:{deployment.config.health_port}", what="The SuperLink")
    if days_left(deployment.certificate) <= 0:
        raise FedgraftError(
            f"{deployment.certificate} has expired; `python -m server renew {deployment.path}`, then restart."
        )
    if deployment.config.proxy:
        trust = ssl.create_default_context(cafile=str(deployment.authority))
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )
        try:
            direct.open(f"https://localhost:{deployment.config.public_port}/health", timeout=5.0).close()
        except (urllib.error.URLError, OSError) as error:
            raise FedgraftError(f"nginx on port {deployment.config.public_port} does not answer: {error}.") from error


def synchronise(deployment: Deployment, *, say: Callable[[str], None]) -> None:
    """Register the keys that were enrolled, forget those that were withdrawn or replaced."""
    from server.deploy.control import control, key_bytes

    wanted = {code: key_bytes(deployment.enrolled / f"{code}.pub") for code in deployment.codes()}
    with control(deployment.link, deployment.authority) as link:
        known = {(node.name, node.key): node.node for node in link.nodes()}
        for (code, key), node in known.items():
            if wanted.get(code) != key:
                link.unregister(node)
                say(f"{code}: its key is refused from now on")
        nodes = {}
        for code, key in wanted.items():
            nodes[code] = known.get((code, key)) or link.register(code, deployment.enrolled / f"{code}.pub")
            if (code, key) not in known:
                say(f"{code}: enrolled as node {nodes[code]}")
    if read_nodes(deployment) != nodes:
        write_json(deployment.nodes, nodes)


def read_nodes(deployment: Deployment) -> dict[str, int]:
    """Code -> node id of the hospitals that the SuperLink lets in."""
    return json.loads(deployment.nodes.read_text()) if deployment.nodes.exists() else {}


def _start_missing(
    deployment: Deployment, running: dict[str, Process], *, release: str, say: Callable[[str], None]
) -> None:
    if "superlink" not in running:
        running["superlink"] = start_process(
            superlink_command(deployment), log=deployment.logs / "superlink.log", home=deployment.home
        )
        _wait_until_healthy(deployment, running["superlink"])
        _end_orphans(deployment)
        running["executor"] = start_process(
            executor_command(deployment, release=release, parent=running["superlink"].pid),
            log=deployment.logs / "executor.log",
            home=deployment.home,
            **{
                INHERITED: os.pathsep.join(
                    str(find(name, folder=deployment.path).path) for name in deployment.config.plugins
                )
            },
        )
        synchronise(deployment, say=say)
    if deployment.config.proxy and "nginx" not in running:
        command = [nginx_program(), "-p", str(deployment.home), "-c", str(deployment.path / "nginx.conf")]
        running["nginx"] = start_process(command, log=deployment.logs / "nginx.log", home=deployment.home)
    say("ready")


def _end_orphans(deployment: Deployment) -> None:
    """Runs that an earlier SuperLink left under way have lost their ServerApp: Flower would notice after a minute."""
    from server.deploy.control import control

    with control(deployment.link, deployment.authority) as link:
        for run in link.runs():
            if not run.is_over:
                link.stop_run(run.run)


def _watch(deployment: Deployment, running: dict[str, Process]) -> str:
    """The name of the first process that ends; new hospitals are let in meanwhile."""
    seen, looked = _enrolled(deployment), time.monotonic()
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                return name
        if time.monotonic() - looked > ENROLMENT_S:
            looked = time.monotonic()
            if _enrolled(deployment) != seen:
                seen = _enrolled(deployment)
                synchronise(deployment, say=print)
        time.sleep(WATCH_S)


def _enrolled(deployment: Deployment) -> dict[str, bytes]:
    return {code: (deployment.enrolled / f"{code}.pub").read_bytes() for code in deployment.codes()}


def _wait_until_healthy(deployment: Deployment, process: Process) -> None:
    deadline = time.monotonic() + STARTUP_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            check_serving(f"127.0.0.1:{deployment.config.health_port}", what="The SuperLink", timeout_s=1.0)
            return
        except FedgraftError:
            time.sleep(0.2)
    raise FedgraftError(f"The SuperLink did not start: {last_lines(deployment.logs / 'superlink.log')}")


def _warn_of_certificate(deployment: Deployment, say: Callable[[str], None]) -> None:
    left = days_left(deployment.certificate)
    if left < WARN_DAYS:
        say(f"The server's certificate ends in {left:.0f} days: `python -m server renew {deployment.path}`.")
