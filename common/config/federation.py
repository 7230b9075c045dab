"""How updates become one: every aggregation rule's options, the guards, the compression."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.plugins import Registry


@dataclass
class Guards:
    """What the server asks of an update before it may be aggregated, and when it stops listening to a center."""

    norm_factor: float = 5.0  # an update this many times the round's median norm is quarantined; 0 switches it off
    norm_mads: float = 6.0  # ... unless it is within this many (scaled) median absolute deviations of the median
    norm_cap: float | None = None  # a norm that no part of an update may exceed, whatever the others do
    cases_factor: float = 100.0  # a center with this many times the others' median of cases is not enrolled; 0: off
    strikes: int = 3  # quarantined updates after which a center is suspended until released; 0: never
    validation: str = "pooled"  # pooled sums, or median of the centers' own values: no center alone chooses the round


@dataclass
class Compression:
    """How adapters travel: as they are, or as rounded differences with error feedback, both ways."""

    kind: str = "none"  # none, fp16, int8 (neighbors in groups share a scale) or topk (the largest share)
    group: int = 64  # int8: neighbors that share a scale
    share: float = 0.1  # topk: of the coordinates, those that travel


@dataclass
class Federation:
    """What every aggregation rule has."""

    kind: str = ""
    quorum: float = 0.7  # share of the step's centers that must reply, else the round is void
    deadline_s: float = 3600.0  # of a round; who has not replied by then is left out
    at_least: int = 0  # centers to wait for where a step asks "*"; 0: those that are there once no more come
    proximal: float = 0.0  # FedProx: the pull mu of local training towards the round's start
    local: list[str] = field(default_factory=list)  # FedBN: patterns of tensor names that stay at each center
    sum_only: bool = False  # promise never to look at one update by itself: what secure sums need; checked by the rules
    secure_aggregation: bool = False  # updates, losses and scores travel under masks: the server opens sums alone
    secure_bound: float = 1.0  # with it: the most that a coordinate changes in a round; what is beyond is cut off
    personal: float | None = None  # Ditto: each center keeps a model of its own, pulled this much to the common one
    guards: Guards = field(default_factory=Guards)
    compression: Compression = field(default_factory=Compression)


@dataclass
class WeightedFederation(Federation):
    """A rule in which a center's registered training cases count."""

    weighting: str = "sqrt"  # n, sqrt (of n: MDA alone holds 38 % of HECKTOR) or uniform


@dataclass
class MeanFederation(WeightedFederation):
    """Weighted mean of the centers' parameters, part by part over the centers that trained the part."""

    kind: str = "mean"


@dataclass
class FedAvgMFederation(WeightedFederation):
    """The mean's step with momentum on the server."""

    kind: str = "fedavgm"
    learning_rate: float = 1.0  # of the server's step; 1: the mean itself
    momentum: float = 0.9  # share of the last step that is kept, in [0, 1)


@dataclass
class AdaptiveFederation(WeightedFederation):
    """The mean's step, scaled per coordinate on the server."""

    learning_rate: float = 0.01  # of the server's step
    beta1: float = 0.9  # decay of the first moment
    beta2: float = 0.99  # decay of the second moment
    tau: float = 1e-3  # adaptivity: what the root of the second moment starts at and is added to it


@dataclass
class FedAdamFederation(AdaptiveFederation):
    """The mean's step scaled by Adam on the server."""

    kind: str = "fedadam"


@dataclass
class FedYogiFederation(AdaptiveFederation):
    """The mean's step scaled by Yogi on the server: its second moment forgets more slowly."""

    kind: str = "fedyogi"


@dataclass
class FedAdagradFederation(WeightedFederation):
    """As FedAdam, with a second moment that never forgets."""

    kind: str = "fedadagrad"
    learning_rate: float = 0.01  # of the server's step
    beta1: float = 0.0  # decay of the first moment; 0: none
    tau: float = 1e-3  # adaptivity: what the root of the second moment starts at and is added to it


@dataclass
class ScaffoldFederation(WeightedFederation):
    """Control variates against client drift: twice the bytes, and state at both ends."""

    kind: str = "scaffold"
    learning_rate: float = 1.0  # of the server's step; 1: the mean itself


@dataclass
class FedDynFederation(WeightedFederation):
    """Dynamic regularisation against client drift, with state at both ends."""

    kind: str = "feddyn"
    alpha: float = 0.1  # strength of the regularisation


@dataclass
class MedianFederation(Federation):
    """Median of each coordinate: every center one voice."""

    kind: str = "median"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused


@dataclass
class TrimmedMeanFederation(Federation):
    """Mean of each coordinate without its ``faulty`` smallest and largest values."""

    kind: str = "trimmed_mean"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused


@dataclass
class GeometricMedianFederation(WeightedFederation):
    """The point with the least summed distance to the updates (RFA)."""

    kind: str = "geometric_median"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused
    smoothing: float = 1e-6  # of the median distance: below it an update counts as being there


@dataclass
class NormClipFederation(WeightedFederation):
    """Mean of updates that are shortened to a common length."""

    kind: str = "norm_clip"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused
    bound: float | None = None  # length of an update; null: the median of the round's lengths


@dataclass
class CenteredClipFederation(WeightedFederation):
    """Mean of updates whose distance from the running center is shortened, repeated."""

    kind: str = "centered_clip"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused
    bound: float | None = None  # distance; null: the median of the distances, in every iteration
    iterations: int = 3  # of clipping around the new center


@dataclass
class KrumFederation(Federation):
    """The one update that is nearest to its neighbors. Costs about half an update where nobody attacks."""

    kind: str = "krum"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused


@dataclass
class MultiKrumFederation(Federation):
    """Mean of the updates that are nearest to their neighbors."""

    kind: str = "multi_krum"
    faulty: int = 2  # centers that may send anything; too few centers for it are refused
    keep: int | None = None  # how many; null: all but ``faulty``


@dataclass
class BulyanFederation(Federation):
    """Multi-Krum's selection, then a trimmed mean around the median of each coordinate."""

    kind: str = "bulyan"
    faulty: int = 1  # centers that may send anything; too few centers for it are refused


@dataclass
class NewtonFederation(Federation):
    """Exact: centers send sums of gradients and Hessians, the fit equals that of pooled cases (a Cox model's risk sets
    stay within centers). For steps whose only part is linear; ``rounds`` is the most that the search may take."""

    kind: str = "newton"
    objective: str = ""  # empty: the task's own (cox, hazard or logistic); ridge: least squares, in one round
    penalty: float = 10.0  # of penalty / 2 * |weight|^2 beside the summed loss, on standardised columns
    penalties: list[float] = field(default_factory=list)  # tried beside penalty; the step's validation rule chooses
    keep_sums: bool = True  # false: a center's own ridge sums are forgotten once added; it cannot be subtracted later


FEDERATIONS: Registry[type] = Registry(
    "aggregation rule",
    "spec",
    {
        "bulyan": BulyanFederation,
        "centered_clip": CenteredClipFederation,
        "fedadagrad": FedAdagradFederation,
        "fedadam": FedAdamFederation,
        "fedavgm": FedAvgMFederation,
        "feddyn": FedDynFederation,
        "fedyogi": FedYogiFederation,
        "geometric_median": GeometricMedianFederation,
        "krum": KrumFederation,
        "mean": MeanFederation,
        "median": MedianFederation,
        "multi_krum": MultiKrumFederation,
        "newton": NewtonFederation,
        "norm_clip": NormClipFederation,
        "scaffold": ScaffoldFederation,
        "trimmed_mean": TrimmedMeanFederation,
    },
)
