"""Deployment: one coordinator's folder, with everything that a backup must hold."""

from __future__ import annotations

import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omegaconf import OmegaConf

from common.errors import ConfigError, FedgraftError
from common.files import write_bytes
from server.deploy.certificates import make_authority, make_server_certificate

HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
EXPLAINED = """\
# A coordinator's settings, written by `python -m server init`; `python -m server start` reads them.
# name          the DNS name (or address) under which hospitals reach this machine; it is in the certificate
# public_port   the one port that hospitals reach: nginx, TLS, Flower's fleet paths only
# link_port     Flower's SuperLink, on loopback; it also has the control API, so never open it to anyone
# health_port   gRPC health service, on loopback; `python -m server health` probes it
# proxy         true: `server start` runs nginx itself; false: your own proxy does, with nginx.conf as its pattern
# plugins       own code beside this checkout's (Python files from this folder); every hospital must name the same files
"""


@dataclass
class ServerConfig:
    """``server.yaml``."""

    name: str = "localhost"
    public_port: int = 8443
    link_port: int = 9092
    health_port: int = 9093
    proxy: bool = True
    plugins: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Deployment:
    """The coordinator's folder and the names of its files."""

    path: Path
    config: ServerConfig

    @classmethod
    def open(cls, path: Path) -> Deployment:
        """The deployment in a folder. Raises FedgraftError where there is none."""
        file = path / "server.yaml"
        if not file.is_file():
            raise FedgraftError(f"{path} is no coordinator's folder; make one with `python -m server init {path}`.")
        try:
            merged = OmegaConf.merge(OmegaConf.structured(ServerConfig), OmegaConf.load(file))
            config = OmegaConf.to_object(merged)
        except Exception as error:
            raise ConfigError(f"{file} is not a coordinator's configuration: {error}") from error
        assert isinstance(config, ServerConfig)
        return cls(path.resolve(), config)

    @property
    def authority(self) -> Path:
        """Certificate of the federation's own authority: the file that hospitals get."""
        return self.path / "ca.crt"

    @property
    def authority_key(self) -> Path:
        """Its private key; needed for a new server certificate only, and best kept offline."""
        return self.path / "ca.key"

    @property
    def certificate(self) -> Path:
        """The server's certificate, for nginx and for the SuperLink behind it."""
        return self.path / "server.crt"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.path / "server.key"

    @property
    def secret(self) -> Path:
        """The secret with which the SuperLink hands out its ServerApp tasks."""
        return self.path / "executor.secret"

    @property
    def database(self) -> Path:
        """Flower's own memory: nodes, runs and messages under way."""
        return self.path / "superlink.db"

    @property
    def enrolled(self) -> Path:
        """One public key per hospital, ``<code>.pub``."""
        return self.path / "enrolled"

    @property
    def nodes(self) -> Path:
        """Code -> Flower's node id and the key that it was registered with."""
        return self.path / "nodes.json"

    @property
    def runs(self) -> Path:
        """Run folders: ledger, bank, checkpoints, report."""
        return self.path / "runs"

    @property
    def home(self) -> Path:
        """Working folder of what is started; holds nothing that matters."""
        return self.path / "home"

    @property
    def logs(self) -> Path:
        """Logs of the SuperLink, the ServerApp and nginx."""
        return self.path / "logs"

    @property
    def link(self) -> str:
        """Where the SuperLink listens."""
        return f"127.0.0.1:{self.config.link_port}"

    def codes(self) -> list[str]:
        """The enrolled hospitals."""
        return sorted(file.stem for file in self.enrolled.glob("*.pub"))


def init(path: Path, config: ServerConfig, *, days: int = 825) -> Deployment:
    """Make a coordinator's folder: authority, server certificate, secret, settings, an empty list of hospitals.

    Raises:
        FedgraftError: the folder is one already, or a name or port cannot be used.
    """
    if (path / "server.yaml").exists():
        raise FedgraftError(f"{path} is a coordinator's folder already; `python -m server renew {path}` renews it.")
    _check(config)
    path.mkdir(parents=True, exist_ok=True)
    deployment = Deployment(path.resolve(), config)
    make_authority(deployment.authority, deployment.authority_key)
    renew(deployment, days=days)
    write_private(deployment.secret, secrets.token_bytes(32))
    for folder in (deployment.enrolled, deployment.runs, deployment.home, deployment.logs):
        folder.mkdir(exist_ok=True)
    settings = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
    write_bytes(path / "server.yaml", (EXPLAINED + settings).encode())
    return deployment


def renew(deployment: Deployment, *, days: int = 825) -> None:
    """A new server key and certificate from the same authority: hospitals need not change anything."""
    make_server_certificate(
        deployment.certificate,
        deployment.key,
        authority=deployment.authority,
        authority_key=deployment.authority_key,
        name=deployment.config.name,
        days=days,
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    write_bytes(path, content)  # made by mkstemp, so it never was readable by others
    path.chmod(0o600)


def check_code(code: str) -> str:
    """A center's code as it may be used in file names and messages. Raises FedgraftError."""
    from common.protocol.wire import CENTER

    if not CENTER.fullmatch(code):
        raise FedgraftError(f"'{code}' is no center's code: letters, digits, _ and -, 32 at most.")
    return code


def _check(config: ServerConfig) -> None:
    ports = [config.public_port, config.link_port, config.health_port]
    if not HOST_NAME.fullmatch(config.name):
        raise ConfigError(f"'{config.name}' is no DNS name or address under which hospitals could reach this machine.")
    if len(set(ports)) != 3 or not all(1 <= port <= 65535 for port in ports):
        raise ConfigError(f"The three ports must differ and lie between 1 and 65535; they are {ports}.")
