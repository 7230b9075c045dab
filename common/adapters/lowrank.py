"""Which tensors of an adapter state are low-rank factors, and which of a step's tensors train in which round.

Pure functions of names and part specs, without peft, so that server, wire and center all read the same declaration:
a LoRA part's layer ``image_blocks.0.qkv`` holds, under ``<part>/<layer>.``,

    ``lora_A.weight`` (r, k)      ``lora_B.weight`` (d, r)     the pair: the layer's weight gains scale * B A
    ``lora_M.weight`` (r, r)      Fed-SB's middle matrix: scale * B M A
    ``lora_magnitude_vector.weight`` (d) or (1, d, 1, ...)     DoRA's norm of each row
    ``lora_side_B`` (d, R), ``lora_side_A`` (R, k)             the task's frozen side factor: the weight gains B A
    ``lora_side_scale`` (d)                                    DoRA's side: the frozen weight's rows are scaled first

Convolutions keep their kernel's shape; `matrix` views any factor as a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

A, B, MIDDLE, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_M.weight", "lora_magnitude_vector.weight"
SIDE_A, SIDE_B, SIDE_SCALE = "lora_side_A", "lora_side_B", "lora_side_scale"

FEDIT, FFA, ROLORA, FEDSVD, FEDSB = "fedit", "ffa", "rolora", "fedsvd", "fedsb"
FLORA, FEDEX, FLEXLORA = "flora", "fedex", "flexlora"
LORA_RULES = (FEDEX, FEDIT, FEDSB, FEDSVD, FFA, FLEXLORA, FLORA, ROLORA)
DORA_RULES = (FEDIT, FLORA)
"""What can average DoRA: its row norms make every other rule inexact as well, without a way to put the rest."""
STACKED = frozenset({FLORA, FEDEX, FLEXLORA})
"""Rules that look at whole products B_i A_i: they need every update by itself and both factors of it."""
RANKED = frozenset({FLORA, FLEXLORA})
"""Rules of products, which may be of any rank: centers can have ranks of their own."""
WITH_SIDE = frozenset({FLORA, FEDEX})


@dataclass(frozen=True)
class Pair:
    """One adapted layer of a LoRA part.

    Args:
        part: the part's name.
        layer: ``<part>/<path in the backbone>``; a tensor's name is ``<layer>.<suffix>``.
        spec: the part's `LoraPart`.
    """

    part: str
    layer: str
    spec: Any

    def name(self, suffix: str) -> str:
        """The state name of one of the layer's tensors."""
        return f"{self.layer}.{suffix}"

    @property
    def rule(self) -> str:
        """How this part's factors are aggregated, one of `LORA_RULES`."""
        return lora_rule(self.spec)

    @property
    def scale(self) -> float:
        """alpha / rank: what B A is multiplied by, the same at every center."""
        return float(self.spec.alpha) / int(self.spec.rank)


def lora_rule(spec: Any) -> str:
    """The aggregation rule of a LoRA part: RoLoRA where nothing is said, for DoRA the exact stack."""
    return spec.rule or (FLORA if spec.dora else ROLORA)


def pairs_of(names: Iterable[str], parts: Mapping[str, Any]) -> list[Pair]:
    """The adapted layers of a state, by the names of their A factors, in the order of names."""
    lora = {name: spec for name, spec in parts.items() if spec.kind == "lora"}
    found = []
    for name in sorted(names):
        part = name.partition("/")[0]
        if part in lora and name.endswith(f".{A}"):
            found.append(Pair(part, name.removesuffix(f".{A}"), lora[part]))
    return found


def trained_tensors(names: Iterable[str], parts: Mapping[str, Any], *, round: int | None) -> frozenset[str]:
    """The tensors of a state that a round changes: what an optimizer gets and all that a center sends back.

    Args:
        names: a state's names.
        parts: the step's part specs by name; parts that are no LoRA (the task's head too) train whole.
        round: from 1; RoLoRA trains B in odd rounds (B starts at zero: A alone could not learn) and A in even ones.
            None: what any round changes.
    """
    return frozenset(name for name in names if _trains(name, parts.get(name.partition("/")[0]), round))


def seeded_tensors(names: Iterable[str], parts: Mapping[str, Any]) -> frozenset[str]:
    """Factors that no round ever changes and that a part's seed makes anew: they need not travel.

    FFA's A, Fed-SB's A and B. A step that starts from an earlier one's parts holds that step's factors instead.
    """
    return frozenset(
        name
        for name in names
        if (spec := parts.get(name.partition("/")[0])) is not None
        and spec.kind == "lora"
        and name.endswith(_SEEDED.get(lora_rule(spec), ()))
    )


def within_own_rank(state: Mapping[str, Tensor], parts: Mapping[str, Any], center: str) -> dict[str, Tensor]:
    """A state whose pairs are zero beyond the center's own rank. Zeros in both factors have no gradient: they stay."""
    found = dict(state)
    for pair, rank in _own_ranks(state, parts, center):
        for suffix, at in _RANK_AXIS.items():
            kept = state[pair.name(suffix)].clone()
            kept.narrow(at, rank, kept.shape[at] - rank).zero_()
            found[pair.name(suffix)] = kept
    return found


def cut_to_own_rank(state: Mapping[str, Tensor], parts: Mapping[str, Any], center: str) -> dict[str, Tensor]:
    """A state as the center sends it: its pairs without what is beyond its own rank."""
    found = dict(state)
    for pair, rank in _own_ranks(state, parts, center):
        for suffix, at in _RANK_AXIS.items():
            found[pair.name(suffix)] = state[pair.name(suffix)].narrow(at, 0, rank).contiguous()
    return found


def padded(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors filled up with zeros at the end of each axis to the shapes of ``like``: B A stays what it is."""
    import torch  # the rules' names above are read where nothing is computed

    found = dict(state)
    for name, tensor in state.items():
        if tensor.shape != like[name].shape:
            whole = torch.zeros_like(like[name])
            whole[tuple(slice(0, side) for side in tensor.shape)] = tensor
            found[name] = whole
    return found


def _own_ranks(state: Mapping[str, Tensor], parts: Mapping[str, Any], center: str) -> list[tuple[Pair, int]]:
    pairs = [(pair, pair.spec.ranks.get(center)) for pair in pairs_of(state, parts)]
    return [(pair, rank) for pair, rank in pairs if rank is not None and pair.name(B) in state]


_RANK_AXIS = {A: 0, B: 1}


def matrix(tensor: Tensor) -> Tensor:
    """A factor as a matrix (rows, everything else): a view where that is possible."""
    return tensor.reshape(tensor.shape[0], -1)


_SEEDED = {FFA: (f".{A}",), FEDSB: (f".{A}", f".{B}")}
_FROZEN = (f".{SIDE_A}", f".{SIDE_B}", f".{SIDE_SCALE}")
_ONLY = {FFA: (f".{B}",), FEDSVD: (f".{B}",), FEDSB: (f".{MIDDLE}",)}


def _trains(name: str, spec: Any, round: int | None) -> bool:
    if spec is None or spec.kind != "lora":
        return True
    if name.endswith(_FROZEN):
        return False
    rule = lora_rule(spec)
    if rule in _ONLY:
        return name.endswith(_ONLY[rule])
    if rule == ROLORA and round is not None:
        return name.endswith(f".{B}" if round % 2 else f".{A}")
    return True
