"""What of a reply goes under masks, in which order; and what a secure sum asks, as one digest, whoever is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from common.backbones.base import tensors_digest
from common.config.federation import NewtonFederation
from common.config.load import step_to_json, to_json
from common.config.step import Step
from common.errors import WireError
from common.exact.step import declared_in_order
from common.exact.thresholds import THRESHOLDS
from common.privacy.masking.asked import Masking, reply_shapes
from common.privacy.masking.center import Vectors
from common.privacy.masking.keys import SAID
from common.privacy.masking.numbers import (
    Form,
    decoded,
    decoded_exactly,
    decoded_sums,
    encoded,
    encoded_exactly,
    encoded_sums,
)
from common.privacy.scores import scored_task
from common.protocol.messages import Order, State, Sums
from common.protocol.wire import FIT_SUMS, declared_scores

QUESTION = "query.masking"  # the four phases that no patient is looked at for
UPDATE, SUMS = "update", "sums"
MASKED = "masked/"  # before their names in a reply's extras
PARTS = MASKED + "parts"  # which parts a center trained, with its signature

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Layout:
    """The numbers of a masked reply: tensors part by part, each part's weight behind it, and sums by name.

    Args:
        is_exact: the sums are of an exact fit, and as exact as float64; each takes twice the room.
    """

    tensors: Shapes
    sums: Shapes
    is_exact: bool = False

    @property
    def parts(self) -> list[str]:
        """Parts in order."""
        return list(dict.fromkeys(_part(name) for name, _ in self.tensors))

    def of(self, part: str) -> Shapes:
        """One part's tensors."""
        return tuple((name, shape) for name, shape in self.tensors if _part(name) == part)


def layout_of(state: Mapping[str, Tensor], sums: Mapping[str, tuple[int, ...]]) -> Layout:
    """The layout of what a step declares. Raises WireError for a tensor of whole numbers, of which no mean travels."""
    whole = sorted(name for name, tensor in state.items() if not tensor.is_floating_point())
    if whole:
        raise WireError(f"'{whole[0]}' holds whole numbers, which a secure sum of differences does not carry.")
    named = sorted(((name, tuple(tensor.shape)) for name, tensor in state.items()), key=lambda n: (_part(n[0]), n[0]))
    return Layout(tuple(named), tuple(sorted((name, tuple(shape)) for name, shape in sums.items())))


def training_layout(order: Order, leaving: State) -> Layout:
    """What of a training reply is masked: the tensors that leave, and the sums of the fit where noise hides none."""
    return layout_of(leaving, FIT_SUMS if order.step.privacy is None else {})


def scoring_layout(order: Order) -> Layout:
    """What of an answer with scores is masked."""
    shapes = declared_scores(order, scored_task(order.step))
    return layout_of({}, {name: shape for name, shape in shapes.items() if name != "fit.batches"})


def is_fit_question(order: Order) -> bool:
    """Whether an order asks for sums of an exact fit: moments, gradients, Gram sums, histograms of its scores."""
    return order.step.federation.kind == "newton" and order.subset in ("", THRESHOLDS)


def fit_layout(order: Order) -> Layout:
    """What of an answer to a question of an exact fit is masked."""
    return replace(layout_of({}, declared_in_order(order)), is_exact=True)


def sums_layout(order: Order) -> Layout:
    """What of an answer with sums alone is masked: of an exact fit's question, or of scores."""
    return fit_layout(order) if is_fit_question(order) else scoring_layout(order)


def masked_form(layout: Layout) -> State:
    """What a masked reply holds: bit patterns of unsigned numbers, as torch's signed types."""
    numbers = sum(prod(shape) for _, shape in layout.tensors) + len(layout.parts)
    sums = sum(prod(shape) for _, shape in layout.sums)
    found = {PARTS: torch.empty(len(layout.parts) + SAID, dtype=torch.uint8, device="meta")}
    if numbers:
        found[MASKED + UPDATE] = torch.empty(numbers, dtype=torch.int32, device="meta")
    if sums:
        found[MASKED + SUMS] = torch.empty(sums * (2 if layout.is_exact else 1), dtype=torch.int64, device="meta")
    return found


def phase_form(masking: Masking) -> State:
    """What the answer to one of the other phases holds."""
    shapes = reply_shapes(masking.phase, len(masking.centers))
    return {name: torch.empty(shape, dtype=torch.uint8, device="meta") for name, shape in shapes.items()}


def numbers_of(
    layout: Layout, form: Form, *, state: State, start: State, weight: float, sums: Sums
) -> tuple[Vectors, bytes]:
    """A center's numbers to be masked, and a 1 for each part that it carries.

    Raises:
        WireError: numbers that are not finite, or beyond what a sum can carry.
    """
    carried, pieces = [], []
    for part in layout.parts:
        here = all(name in state for name, _ in layout.of(part))
        carried.append(int(here))
        pieces.append(encoded(form, _difference(layout.of(part), state if here else start, start), weight * here))
    vectors = {UPDATE: np.concatenate(pieces)} if pieces else {}
    if layout.sums:
        missing = sorted({name for name, _ in layout.sums} - set(sums))
        if missing:
            raise WireError(f"A masked reply must hold every declared sum; {missing[0]} is missing.")
        flat = [np.asarray(sums[name], np.float64).reshape(-1) for name, _ in layout.sums]
        encode = encoded_exactly if layout.is_exact else encoded_sums
        vectors[SUMS] = encode(np.concatenate(flat), form.contributors)
    return vectors, bytes(carried)


def is_cut_off(form: Form, state: State, start: State) -> int:
    """Coordinates beyond the bound."""
    return sum(int(((tensor - start[name]).abs() > form.bound).sum()) for name, tensor in state.items())


def update_in(
    layout: Layout, form: Form, total: np.ndarray, start: State, carried: Collection[str]
) -> tuple[State, dict[str, float]]:
    """The mean update that a sum says, as a state of the parts that were carried, and each part's summed weight."""
    state: State = {}
    weights: dict[str, float] = {}
    at = 0
    for part in layout.parts:
        shapes = layout.of(part)
        size = sum(prod(shape) for _, shape in shapes)
        piece, at = total[at : at + size + 1], at + size + 1
        if part not in carried:
            continue
        mean, weights[part] = decoded(form, piece)
        below = 0
        for name, shape in shapes:
            own, below = mean[below : below + prod(shape)], below + prod(shape)
            moved = start[name].double() + torch.from_numpy(own.copy()).view(shape)
            state[name] = moved.to(start[name].dtype)
    return state, weights


def sums_in(layout: Layout, total: np.ndarray) -> Sums:
    """Sums by name."""
    values, at, found = (decoded_exactly if layout.is_exact else decoded_sums)(total), 0, Sums()
    for name, shape in layout.sums:
        found[name], at = values[at : at + prod(shape)].reshape(shape), at + prod(shape)
    return found


def to_tensors(vectors: Vectors) -> State:
    """Vectors as a reply's extras."""
    signed = {4: np.int32, 8: np.int64}
    return {MASKED + name: torch.from_numpy(values.view(signed[values.itemsize])) for name, values in vectors.items()}


def from_tensors(extra: State) -> Vectors:
    """The vectors of a reply's extras."""
    unsigned = {4: np.uint32, 8: np.uint64}
    names = (name for name in extra if name.startswith(MASKED) and name != PARTS)
    arrays = {name.removeprefix(MASKED): extra[name].contiguous().numpy() for name in names}
    return {name: values.view(unsigned[values.itemsize]) for name, values in sorted(arrays.items())}


def question_of(order: Order, most: float) -> str:
    """Digest of what an order asks of a center's patients, whatever run it belongs to and whoever else is asked.

    Args:
        order: with its whole state.
    """
    asked: dict[str, object] = {
        "step": step_to_json(order.step),
        "backbone": to_json(order.backbone),
        "split": to_json(order.split),
        "numbers": [order.seed, order.round, order.minimum_cell, order.skip_unreadable, order.threshold, most],
        "texts": [order.base, order.subset, order.mode],
        "state": tensors_digest(order.state),
        "extra": tensors_digest(order.extra),
        "known": tensors_digest({name: torch.tensor(np.asarray(value)) for name, value in order.known.items()}),
    }
    if is_fit_question(order):
        asked |= _of_fit(order)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _of_fit(order: Order) -> dict[str, object]:
    """What decides sums of an exact fit, in the place of the whole step and nothing else: one under another name, with
    more rounds or another seed asks the same, and must not be answered over other centers."""
    step = order.step
    decides = Step(
        task=step.task, modalities=step.modalities, adapter=step.adapter, federation=_objective(step.federation),
        view=step.view, privacy=step.privacy, train_parts=step.train_parts, region=step.region,
    )  # fmt: skip
    state = tensors_digest(order.state) if order.subset else ""  # only histograms of scores look at it
    numbers = [bool(order.round), order.minimum_cell, order.skip_unreadable]
    return {"step": step_to_json(decides), "numbers": numbers, "state": state}


def _objective(spec: NewtonFederation) -> NewtonFederation:
    return NewtonFederation(objective=spec.objective, secure_aggregation=True)


def _difference(shapes: Shapes, state: State, start: State) -> np.ndarray:
    if state is start:
        return np.zeros(sum(prod(shape) for _, shape in shapes))
    moved = [(state[name].detach().cpu() - start[name].cpu()).reshape(-1).numpy() for name, _ in shapes]
    return np.concatenate(moved)


def _part(name: str) -> str:
    return name.partition("/")[0]
