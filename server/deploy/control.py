"""Control: the coordinator's own door to its SuperLink, over loopback: nodes, and runs started and watched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.app.user_config import UserConfig
from flwr.cli.build import build_fab_from_files
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from common.errors import FedgraftError
from common.plugins import loaded_files
from common.runtime.release import release_files


class LinkUnreachable(FedgraftError):
    """The SuperLink does not answer."""

    code = "link"


@dataclass(frozen=True)
class NodeState:
    """One registered node."""

    node: int
    name: str
    status: str  # registered, online, offline
    key: bytes


@dataclass(frozen=True)
class RunState:
    """One of Flower's runs; a curriculum that was resumed has several."""

    run: int
    status: str  # pending, starting, running, finished
    outcome: str  # completed, failed, stopped; empty before it has ended
    details: str
    folder: str
    bytes_sent: int
    bytes_received: int
    client_seconds: float

    @property
    def is_over(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status == "finished"


class Control:
    """A SuperLink's control API."""

    def __init__(self, client: ControlHttpClient):
        self._client = client

    def nodes(self) -> list[NodeState]:
        """Registered nodes."""
        found = self._client.ListNodes(ListNodesRequest()).nodes_info
        states = [NodeState(n.node_id, n.name, n.status, n.public_key) for n in found]
        return sorted((s for s in states if s.status != "unregistered"), key=lambda s: (s.name, s.node))

    def register(self, code: str, public_key: Path) -> int:
        """Register a hospital's key; its node id."""
        request = RegisterNodeRequest(public_key=key_bytes(public_key), name=code)
        return int(self._client.RegisterNode(request).node_id)

    def unregister(self, node: int) -> None:
        """Forget a node: its key is refused from now on."""
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def start_run(self, config: Mapping[str, str]) -> int:
        """Start the two apps of this checkout with a run configuration; Flower's run id."""
        bundle = build_fab_from_files(release_files(plugins=loaded_files()))[0]
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        settings: UserConfig = dict(config)
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(settings))
        response = self._client.StartRun(request)
        if not response.HasField("run_id"):
            raise FedgraftError("The SuperLink did not start the run; its log is in logs/superlink.log.")
        return int(response.run_id)

    def stop_run(self, run: int) -> None:
        """End a run that nobody carries out any more."""
        self._client.StopRun(StopRunRequest(run_id=run))

    def runs(self) -> list[RunState]:
        """All runs, the newest first."""
        found = self._client.ListRuns(ListRunsRequest()).run_dict.values()
        return [
            RunState(
                run.run_id,
                run.status.status,
                run.status.sub_status,
                run.status.details,
                str(user_config_from_proto(run.override_config).get("run-dir", "")),
                run.bytes_sent,
                run.bytes_recv,
                run.clientapp_runtime,
            )
            for run in sorted(found, key=lambda run: run.pending_at, reverse=True)
        ]


@contextmanager
def control(address: str, authority: Path) -> Iterator[Control]:
    """The control API at a loopback address. Raises LinkUnreachable when nothing answers."""
    interceptors: list[Any] = [CliClientHttpInterceptor(), RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
    client = ControlHttpClient.from_server_address(
        address, insecure=False, root_certificates=authority.read_bytes(), interceptors=interceptors
    )
    try:
        yield Control(client)
    except httpx.TransportError as error:
        raise LinkUnreachable(
            f"The SuperLink at {address} does not answer ({error}); start it with `python -m server start`."
        ) from error
    except httpx.HTTPStatusError as error:
        raise FedgraftError(f"The SuperLink refused: {error.response.text[:300]}") from error
    finally:
        client.close()


def key_bytes(public_key: Path) -> bytes:
    """A public key file as Flower wants it. Raises FedgraftError when it is none of a NIST curve."""
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = load_ssh_public_key(public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise FedgraftError(f"{public_key} is no public key in OpenSSH's form: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise FedgraftError(f"{public_key} is not an ECDSA key; hospitals make theirs with `python -m client init`.")
    return public_key_to_bytes(key)
