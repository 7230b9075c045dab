"""A hospital's node: Flower's SuperNode and our executor beside it, started, watched and started again.

The node only ever calls out: one TLS connection to the coordinator's address. What it opens itself is a loopback port
between its own two processes, guarded by a secret that is made anew at every start.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import FedgraftError
from common.processes import (
    Process,
    program,
    start_process,
    stop_processes,
    terminated_is_interrupted,
)
from common.reviewed import own_digest

PAUSES_S = (5.0, 10.0, 30.0, 60.0)  # before the first, second, … start after a crash
STEADY_S = 120.0  # a node that ran for so long starts counting anew
WATCH_S = 0.5
NODE_ID = re.compile(r"SuperNode ID: (\d+)")
REFUSALS = {  # what Flower says -> what it means here
    "[code: 2004]": (
        "The coordinator at {server} does not know the key {key}: send it the public half (.pub) and ask to be "
        "enrolled (`python -m server enrol`)."
    ),
    "Invalid SuperNode authentication": (
        "The coordinator at {server} refused the signature made with {key}: its half of the key is another one, or "
        "this machine's clock is wrong."
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "The certificate that {server} shows is not signed by {ca}: ask the coordinator for the present ca.crt, and "
        "do not go on without it."
    ),
    "WRONG_VERSION_NUMBER": "{server} does not speak TLS: check the address and port, and what stands in between.",
}


@dataclass
class NodeConfig:
    """The section ``node`` of ``center.yaml``: how this hospital reaches its coordinator."""

    server: str = "???"  # the coordinator's address, host:port; the node only calls out
    ca: str = "ca.crt"  # certificate of the coordinator's authority
    key: str = "node.key"  # this node's private key (ECDSA P-384, OpenSSH format); never leaves this machine
    home: str = ".node"  # the node's own files: logs, Flower's folder, the secret between its two processes
    port: int = 9094  # on loopback, between the node's two processes
    health_port: int | None = None  # on loopback: gRPC health service for compose, systemd or monitoring


class NodeRefused(FedgraftError):
    """The coordinator does not accept this node, or this node not the coordinator."""

    code = "node"


def start(config: NodeConfig, *, center: Path, code: str, say: Callable[[str], None] = print) -> None:
    """Run the node until it is stopped (Ctrl-C, SIGTERM), through crashes of either of its processes.

    Args:
        center: the hospital's ``center.yaml``; only its path is given to Flower, and only on this machine.
        code: the center's code, under which the coordinator enrolled the node's public key.

    Raises:
        NodeRefused: the coordinator does not know this node's key, or its certificate is not the one expected here.
        FedgraftError: a file is missing.
    """
    _check_files(config, center)
    release = own_digest()
    say(f"{code}: release {release[:12]}, coordinator {config.server}, log {_log(config)}")
    crashes = 0
    _sign_off(config)  # an earlier start may have ended with its machine
    with terminated_is_interrupted():
        while True:
            started, node = time.monotonic(), _start_both(config, center=center, code=code, release=release)
            try:
                ended = _wait_for_one(node)
            except KeyboardInterrupt:
                return
            finally:
                stop_processes(node)
            _sign_off(config)
            _raise_if_refused(config)
            crashes = 0 if time.monotonic() - started > STEADY_S else crashes + 1
            pause = PAUSES_S[min(max(crashes - 1, 0), len(PAUSES_S) - 1)]
            say(f"{code}: {ended} ended; the node starts again in {pause:.0f} s. Its log: {_log(config)}")
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                return


def supernode_command(config: NodeConfig, *, center: Path, code: str) -> list[str]:
    """Flower's SuperNode as this project starts it: TLS, a key of its own, tasks only for our executor."""
    command = [program("flower-supernode"), "--superlink", config.server]
    command += ["--root-certificates", str(Path(config.ca).resolve())]
    command += ["--auth-supernode-private-key", str(Path(config.key).resolve())]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(_secret(config).resolve())]
    command += ["--host", "127.0.0.1", "--port", str(config.port)]
    command += ["--node-config", f'center="{center.resolve()}" code="{code}"']
    if config.health_port is not None:
        command += ["--health-server-address", f"127.0.0.1:{config.health_port}"]
    return command


def executor_command(config: NodeConfig, *, release: str, parent: int) -> list[str]:
    """Our executor: the only thing that holds the secret with which tasks are handed out."""
    command = [
        sys.executable,
        "-c",
        "from client.executor import main; main()",
        "--runtime-api-address",
        f"127.0.0.1:{config.port}",
    ]
    return [*command, "--secret", str(_secret(config).resolve()), "--release", release, "--parent-pid", str(parent)]


def _start_both(config: NodeConfig, *, center: Path, code: str, release: str) -> list[Process]:
    home = Path(config.home)
    _write_secret(_secret(config))
    if _log(config).exists():
        _log(config).replace(home / "node.log.1")
    supernode = start_process(supernode_command(config, center=center, code=code), log=_log(config), home=home)
    command = executor_command(config, release=release, parent=supernode.pid)
    return [start_process(command, log=home / "center.log", home=home), supernode]


def _wait_for_one(node: list[Process]) -> str:
    executor, supernode = node
    while True:
        if supernode.poll() is not None:
            return "Flower's SuperNode"
        if executor.poll() is not None:
            return "the executor"
        time.sleep(WATCH_S)


def _sign_off(config: NodeConfig) -> None:
    """Tell the coordinator that this node is gone, so that a round does not wait for a message that died with it.

    Flower would find out after a minute, and would refuse to let the node in again before.
    """
    found = NODE_ID.findall(_said(config))
    if not found:
        return
    import httpx
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(Path(config.key).read_bytes(), None)
    signed = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),  # type: ignore[arg-type]
    ]
    try:
        with FleetHttpClient.from_server_address(config.server, False, str(Path(config.ca)), signed) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(found[-1])))
    except (httpx.HTTPError, RuntimeError):
        return  # the coordinator cannot be reached: it will notice the silence by itself


def _raise_if_refused(config: NodeConfig) -> None:
    said = _said(config)
    reason = next((sentence for mark, sentence in REFUSALS.items() if mark in said), None)
    if reason is not None and not NODE_ID.search(said):
        raise NodeRefused(reason.format(server=config.server, key=config.key, ca=config.ca))


def _check_files(config: NodeConfig, center: Path) -> None:
    missing = [str(path) for path in (center, Path(config.ca), Path(config.key)) if not path.is_file()]
    if missing:
        raise FedgraftError(
            f"Not here: {', '.join(missing)}. `python -m client init` makes the key and the center's file; the "
            "coordinator sends ca.crt."
        )
    Path(config.home).mkdir(parents=True, exist_ok=True)


def _log(config: NodeConfig) -> Path:
    return Path(config.home) / "node.log"


def _said(config: NodeConfig) -> str:
    """What Flower's SuperNode has said since its last start."""
    return _log(config).read_text(errors="replace") if _log(config).exists() else ""


def _secret(config: NodeConfig) -> Path:
    return Path(config.home) / "executor.secret"


def _write_secret(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_bytes(32))
