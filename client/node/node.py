"""A hospital's node: Flower's SuperNode and our executor beside it, started, watched and started again.

The node only ever calls out: one TLS connection to the coordinator's address. What it opens itself is a loopback port
between its own two processes, guarded by a secret that is made anew at every start.
"""

from __future__ import annotations

import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.node.supernode import MARK
from client.vault.lock import only_one
from common.errors import ConfigError, FedgraftError
from common.files import write_bytes
from common.plugins import files_of
from common.runtime.processes import (
    Process,
    start_process,
    stop_processes,
    terminated_is_interrupted,
)
from common.runtime.release import own_digest
from common.text_yaml import load_text

PAUSES_S = (5.0, 10.0, 30.0, 60.0)  # before the first, second, … start after a crash
STEADY_S = 120.0  # a node that ran for so long starts counting anew
WATCH_S = 0.5
NODE_ID = re.compile(r"SuperNode ID: (\d+)")
A_RUN = "a run"  # what ended, where it was neither of the two processes
OUT_OF_STEP = re.compile(rb"Ignoring (?:the )?message")
"""What Flower's SuperNode says when a run ends while it receives a message. It may keep that message and answer it in
the next one's place: then every later answer comes one message late, and rounds wait for it until it starts afresh."""
PATIENCE_S = 90.0
RUNS_ALREADY = (
    "A node of {code} runs here already (its logs are in {home}): a second one would take its place at the coordinator "
    "and lose the message that it works on. Stop it first, with Ctrl-C or SIGTERM."
)
UNKNOWN_KEY = "[code: 2004]"
REFUSALS = {  # what Flower says -> what it means here
    UNKNOWN_KEY: (
        "The coordinator at {server} does not let in the key {key}: it is not enrolled there, or not any more, or "
        "another node with this key is connected now. Send the public half (.pub) and ask to be enrolled (`python -m "
        "server enrol`), or stop the other node: a hospital has one key and one node."
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


@dataclass(frozen=True)
class Node:
    """What of a center's file its node needs, and where it keeps its own files."""

    code: str  # under which the coordinator enrolled the node's public key
    center: Path  # center.yaml; only its path is given to Flower, and only on this machine
    server: str  # the coordinator's address, host:port; the node only calls out
    ca: Path  # certificate of the coordinator's authority
    key: Path  # this node's private key (ECDSA, OpenSSH format); never leaves this machine
    home: Path  # logs, Flower's folder, the secret between the node's two processes
    health: str  # loopback address of the gRPC health service
    port: int  # on loopback, between the node's two processes
    plugins: Mapping[str, Path] = field(default_factory=dict)  # its own code, by the name in a release

    @property
    def log(self) -> Path:
        """What Flower's SuperNode says since its last start."""
        return self.home / "node.log"

    @property
    def secret(self) -> Path:
        """Who holds it is handed the node's messages; made anew at every start."""
        return self.home / "executor.secret"

    @property
    def identity(self) -> Path:
        """The id that the coordinator gave this node when it last let it in."""
        return self.home / "node.id"

    @property
    def reached(self) -> Path:
        """Touched whenever the coordinator answers (`client.node.supernode`)."""
        return self.home / "reached"

    def was_in(self) -> bool:
        """Whether the coordinator has ever let this node in."""
        return self.identity.exists() or NODE_ID.search(self.said()) is not None

    def said(self) -> str:
        """The log's text."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class NodeRefused(FedgraftError):
    """The coordinator does not accept this node, or this node not the coordinator."""

    code = "node"


def start(center: Path, *, say: Callable[[str], None] = print) -> int:
    """Run a hospital's node until it is stopped (Ctrl-C, SIGTERM), through crashes of either of its processes.

    Raises:
        NodeRefused: the coordinator does not know this node's key, or its certificate is not the one expected here.
        ConfigError: the center's file does not say how to reach the coordinator.
        FedgraftError: a file is missing.
    """
    node = node_of(center)
    _check_files(node)
    with only_one(node.home / ".lock", otherwise=RUNS_ALREADY.format(code=node.code, home=node.home)):
        return _keep_running(node, say)


def _keep_running(node: Node, say: Callable[[str], None]) -> int:
    release, crashes, last_in = own_digest(plugins=node.plugins), 0, time.monotonic()
    say(f"{node.code}: release {release[:12]}, coordinator {node.server}, logs in {node.home}")
    _sign_off(node)  # an earlier start may have ended with its machine
    with terminated_is_interrupted():
        while True:
            started, running = time.monotonic(), _start_both(node, release=release)
            try:
                ended = _wait_for_one(running, node)
            except KeyboardInterrupt:
                return 0
            finally:
                stop_processes(running)
            _sign_off(node)
            last_in = time.monotonic() if NODE_ID.search(node.said()) else last_in
            still_in = node.was_in() and time.monotonic() - last_in < PATIENCE_S
            _raise_if_refused(node, patient=still_in)
            if ended == A_RUN:
                say(f"{node.code}: {ended} ended while a message of it was received; the node starts afresh")
                continue
            crashes = 1 if time.monotonic() - started > STEADY_S else crashes + 1
            pause = PAUSES_S[min(crashes, len(PAUSES_S)) - 1]
            say(f"{node.code}: {ended} ended; the node starts again in {pause:.0f} s")
            try:
                time.sleep(pause)
            except KeyboardInterrupt:
                return 0


def node_of(center: Path) -> Node:
    """The node that a center's file describes.

    Only what the node needs is read: the whole file is checked by every message's own process and by
    `python -m client doctor`, which import PyTorch; a process that only watches two others must not.
    """
    try:
        config = dict(load_text(center))
    except Exception as error:
        raise ConfigError(f"{center} is not a center's configuration: {error}") from error
    missing = [name for name in ("code", "server", "server_certificate", "key") if not config.get(name)]
    if missing:
        raise ConfigError(
            f"{center} does not say {', '.join(missing)}; run `python -m client init` or add them: a node connects "
            "with TLS and its own key, never without."
        )
    return Node(
        code=str(config["code"]),
        center=center.resolve(),
        server=str(config["server"]),
        ca=Path(str(config["server_certificate"])).resolve(),
        key=Path(str(config["key"])).resolve(),
        home=home_of(center, str(config["code"])),
        health=str(config.get("health") or "127.0.0.1:9097"),
        port=_free_port(),
        plugins=files_of(list(config.get("plugins") or []), folder=center.parent),
    )


def home_of(center: Path, code: str) -> Path:
    """The folder of a node's own files: beside its center's file."""
    return (center.parent / f".node-{code}").resolve()


def last_contact(home: Path) -> tuple[float, bool] | None:
    """When the coordinator last answered the node (seconds since 1970), and whether it ever did since the node started;
    else when the node started. None where no node was started here."""
    marks = [
        (path, ever) for path, ever in ((home / "reached", True), (home / "executor.secret", False)) if path.exists()
    ]
    if not marks:
        return None
    path, ever = marks[0]
    return path.stat().st_mtime, ever


def supernode_command(node: Node) -> list[str]:
    """Flower's SuperNode as this project starts it: TLS, a key of its own, tasks only for our executor."""
    launch = "from client.node.supernode import main; main()  # flower-supernode"
    command = [sys.executable, "-c", launch, "--superlink", node.server, "--root-certificates", str(node.ca)]
    command += ["--auth-supernode-private-key", str(node.key)]
    command += ["--isolation", "process", "--superexec-auth-secret-file", str(node.secret)]
    command += ["--host", "127.0.0.1", "--port", str(node.port), "--health-server-address", node.health]
    return [*command, "--node-config", f'center="{node.center}" code="{node.code}"']


def executor_command(node: Node, *, release: str, parent: int) -> list[str]:
    """Our executor: the only thing that holds the secret with which messages are handed out."""
    command = [sys.executable, "-c", "from client.node.executor import main; main()"]
    command += ["--runtime-api-address", f"127.0.0.1:{node.port}", "--secret", str(node.secret)]
    return [*command, "--release", release, "--parent-pid", str(parent)]


def _start_both(node: Node, *, release: str) -> list[Process]:
    _write_secret(node.secret)
    node.reached.unlink(missing_ok=True)  # an earlier start's answers say nothing about this one
    if node.log.exists():
        node.log.replace(node.home / "node.log.1")
    marks = {MARK: str(node.reached)}
    supernode = start_process(supernode_command(node), log=node.log, home=node.home, **marks)
    command = executor_command(node, release=release, parent=supernode.pid)
    return [start_process(command, log=node.home / "center.log", home=node.home), supernode]


def _wait_for_one(running: list[Process], node: Node) -> str:
    """What ended first: one of the two processes, or a run under the SuperNode's hands (`OUT_OF_STEP`)."""
    (executor, supernode), read = running, 0
    while True:
        new = _said_since(node, read)
        if OUT_OF_STEP.search(new):
            return A_RUN
        read += len(new)
        if supernode.poll() is not None:
            return "Flower's SuperNode"
        if executor.poll() is not None:
            return "the executor"
        time.sleep(WATCH_S)


def _said_since(node: Node, read: int) -> bytes:
    """Whole lines of the SuperNode's log after so many bytes."""
    if not node.log.exists() or node.log.stat().st_size <= read:
        return b""
    with node.log.open("rb") as log:
        log.seek(read)
        text = log.read()
    return text[: text.rfind(b"\n") + 1]


def _sign_off(node: Node) -> None:
    """Tell the coordinator that this node is gone, so that a round does not wait for a message that died with it.

    Flower would find out after a minute, and would refuse to let the node in again before.
    """
    found = NODE_ID.findall(node.said()) or ([node.identity.read_text()] if node.identity.exists() else [])
    if not found:
        return
    write_bytes(node.identity, found[-1].encode())
    import httpx
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(node.key.read_bytes(), None)
    signed: list[Any] = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(key, key.public_key()),  # type: ignore[arg-type]
    ]
    try:
        with FleetHttpClient.from_server_address(node.server, False, str(node.ca), signed) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(found[-1])))
    except (httpx.HTTPError, RuntimeError):
        return  # the coordinator cannot be reached: it will notice the silence by itself


def _raise_if_refused(node: Node, *, patient: bool) -> None:
    """A node that vanished without a word is refused, too, until the coordinator has missed it for a minute."""
    said = node.said()
    mark = next((mark for mark in REFUSALS if mark in said), None)
    if mark is not None and not NODE_ID.search(said) and not (patient and mark == UNKNOWN_KEY):
        reason = REFUSALS[mark]
        raise NodeRefused(reason.format(server=node.server, key=node.key, ca=node.ca))


def _check_files(node: Node) -> None:
    missing = [str(path) for path in (node.center, node.ca, node.key) if not path.is_file()]
    if missing:
        raise FedgraftError(
            f"Not here: {', '.join(missing)}. `python -m client init` makes the key and the center's file; the "
            "coordinator sends the certificate of its authority."
        )
    node.home.mkdir(parents=True, exist_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_secret(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(secrets.token_bytes(32))
