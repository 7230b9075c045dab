"""Methods against the drift of centers, and those that give each center something of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class AveragedMomentsMethod:
    """Adam's moments travel and are averaged; ``training.moments=averaged`` asks for it."""

    kind: str = "averaged_moments"


@dataclass
class KeptMomentsMethod:
    """Adam's moments stay at each center; ``training.moments=center`` asks for it."""

    kind: str = "kept_moments"


@dataclass
class DittoMethod:
    """Ditto: each center keeps a whole model of its own beside the common one, as ``federation.personal`` does."""

    strength: float = 0.1  # lambda: the pull of the own model to the common one
    kind: str = "ditto"


@dataclass
class FedDynMethod:
    """A center's end of FedDyn; ``federation=feddyn`` asks for it, whose rule is the other end."""

    alpha: float = 0.1  # strength of the regularisation
    kind: str = "feddyn"


@dataclass
class LocalMethod:
    """FedBN: tensors that stay at each center; ``federation.local`` says the same."""

    tensors: list[str] = field(default_factory=lambda: ["*norm*"])  # patterns of their names
    kind: str = "local"


@dataclass
class ProximalMethod:
    """FedProx: a pull of local training towards the round's start; ``federation.proximal`` says the same."""

    strength: float = 0.01  # mu
    kind: str = "proximal"


@dataclass
class ScaffoldMethod:
    """A center's end of SCAFFOLD; ``federation=scaffold`` asks for it, whose rule is the other end."""

    kind: str = "scaffold"
