"""A center's answers in a secure sum: four phases without patients, and the reply that leaves under masks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from client.center.config import CenterConfig
from client.masking.kept import OpenSum, check_repeated, note_answered
from client.node.keys import load_key, partners_of
from common.config.federation import Federation
from common.errors import PolicyRefusal, WireError
from common.privacy.masking.asked import (
    AGREE,
    KEYS,
    MASK,
    PHASES,
    REVEAL,
    SHARE,
    Masking,
    advert_bytes,
    advert_of,
    sealed_rows,
    share_rows,
    unhexed,
)
from common.privacy.masking.center import MASKING, MaskingCenter
from common.privacy.masking.keys import Context
from common.privacy.masking.numbers import Form
from common.protocol.masked import (
    PARTS,
    Layout,
    is_cut_off,
    is_fit_question,
    numbers_of,
    phase_form,
    question_of,
    sums_layout,
    to_tensors,
)
from common.protocol.messages import TOO_FEW_CASES, Order, Reply, Sums
from common.protocol.weights import weight_of

FLAGS = ("afresh", "ahead")  # counts that leave beside masks: they count no patients
log = logging.getLogger("fedgraft.center")


def check_masked(order: Order) -> None:
    """Raise PolicyRefusal for an order whose answer would leave without the masks that its step promises, or with
    masks that it does not."""
    if asks_masks(order) != (order.masking is not None and order.masking.phase == MASK):
        said = "promises secure sums, and the order asks for this center's own numbers"
        raise PolicyRefusal(MASKING, f"Step '{order.step.name}' {said if asks_masks(order) else 'has none'}.")


def check_unmasked(order: Order) -> None:
    """Raise PolicyRefusal for a question whose sums no masks can hide, asked of a step that promises secure sums; and,
    as `check_masked`, for one of an exact fit without masks."""
    if is_fit_question(order):
        check_masked(order)
    elif asks_masks(order):
        raise PolicyRefusal(
            MASKING, f"Step '{order.step.name}' promises secure sums, and '{order.subset}' is told center by center."
        )


def check_scorable(order: Order, *, cases: Callable[[], int], minimum: int) -> None:
    """Raise PolicyRefusal, before a sum of scores or of thresholds begins, where too few patients would have a part."""
    begins = order.masking is not None and order.masking.phase == KEYS
    if begins and order.subset and cases() < minimum:
        raise PolicyRefusal(TOO_FEW_CASES, "There are too few patients to tell sums over them; no sum is begun.")


def asks_masks(order: Order) -> bool:
    """Whether the step's updates, losses and scores leave as secure sums only."""
    spec: Federation = order.step.federation
    return spec.secure_aggregation


# ---------------------------------------------------------------------------------------------- phases without patients


def answer(config: CenterConfig, vault: Path, order: Order) -> Reply:
    """The answer to one of the four phases in which no patient is looked at. Raises PolicyRefusal."""
    masking = order.masking
    if masking is None or masking.phase not in PHASES or masking.phase == MASK or not asks_masks(order):
        raise PolicyRefusal(MASKING, f"Step '{order.step.name}' has no such phase of a secure sum.")
    kept = OpenSum(vault, order.run)
    center = _center(config, order, "" if masking.phase == KEYS else kept.read(), fresh=masking.phase == KEYS)
    try:
        said = _phase(center, masking, vault)
    except (PolicyRefusal, WireError):
        kept.close()
        raise
    kept.close() if masking.phase == REVEAL else kept.write(center.saved())
    (name,) = phase_form(masking)
    return Reply(config.code, extra={name: torch.from_numpy(said)})


def _phase(center: MaskingCenter, masking: Masking, vault: Path) -> np.ndarray:
    if masking.phase == KEYS:
        return _bytes(advert_bytes(center.advertise()))
    if masking.phase == SHARE:
        adverts = {code: advert_of(code, text) for code, text in unhexed(masking.adverts).items()}
        return sealed_rows(masking.centers, center.share(adverts))
    if masking.phase == AGREE:
        check_repeated(vault, masking.question, list(masking.carried))
        return _bytes(center.agree(unhexed(masking.carried), unhexed(masking.sealed)))
    shares = center.reveal(unhexed(masking.signatures))
    note_answered(vault, masking.question, center.survivors)
    return share_rows(masking.centers, shares)


def _center(config: CenterConfig, order: Order, kept: str, *, fresh: bool = False) -> MaskingCenter:
    masking = order.masking
    assert masking is not None
    if not config.key or not config.partners:
        raise PolicyRefusal(
            MASKING,
            "A secure sum needs this node's key and those of the hospitals that it is summed with; name both in "
            "center.yaml: key, and partners (a folder with each hospital's CODE.pub, from itself).",
        )
    if not kept and not fresh:
        raise PolicyRefusal(MASKING, f"No secure sum of run {order.run[:12]} is open here; it begins with its keys.")
    context = Context(order.run, order.step.name, order.round, masking.question, tuple(masking.centers))
    identity = load_key(Path(config.key))
    known = partners_of(Path(config.partners)) | {config.code: identity.public_key()}
    return MaskingCenter(config.code, context, identity, known, kept)


# -------------------------------------------------------------------------------------------------- replies under masks


def under_masks(config: CenterConfig, vault: Path, order: Order, reply: Reply, layout: Layout) -> Reply:
    """A reply as the server may see it: its numbers under masks, no count of patients, no time that tells of them.

    Args:
        order: with its whole state, as this center trained or scored it.
        reply: as the release gate let it out.

    Raises:
        PolicyRefusal: the order is not what was agreed on, or the sum is at another phase.
        WireError: numbers that no sum can carry.
    """
    masking = order.masking
    if masking is None:
        return reply
    if reply.extra:
        raise WireError(f"'{min(reply.extra)}' and the like do not travel under masks, and so not at all.")
    if layout.sums and not reply.sums:
        raise PolicyRefusal(TOO_FEW_CASES, "Nothing of so few patients may be told, so this center is in no sum.")
    if question_of(order, masking.most) != masking.question:
        raise PolicyRefusal(
            MASKING, f"The order for step '{order.step.name}' is not the one that its sum was begun for."
        )
    kept = OpenSum(vault, order.run)
    center = _center(config, order, kept.read())
    form = Form(order.step.federation.secure_bound, masking.most, len(masking.centers))
    cut = is_cut_off(form, reply.state, order.state)
    if cut:
        log.warning("step=%s round=%s center=%s cut_off=%s", order.step.name, order.round, config.code, cut)
    weight = _weight(order, reply) if layout.tensors else 0.0
    numbers, parts = numbers_of(
        layout, form, state=reply.state, start=order.state, weight=weight, sums=Sums(reply.sums)
    )
    masked, carried = center.mask(numbers, masking.shared, parts)
    kept.write(center.saved())
    extra = to_tensors(masked) | {PARTS: torch.from_numpy(_bytes(carried))}
    counts = {name: count for name, count in reply.counts.items() if name in FLAGS}
    return replace(reply, state={}, sums={}, extra=extra, counts=counts, seconds=0.0)


def sums_under_masks(config: CenterConfig, vault: Path, order: Order, reply: Reply) -> Reply:
    """A reply with sums alone as it leaves: under masks where its order has them. Raises as `under_masks`."""
    return reply if order.masking is None else under_masks(config, vault, order, reply, sums_layout(order))


def _weight(order: Order, reply: Reply) -> float:
    """By the cases that the reply would tell, as the server weighs an update that it sees."""
    return weight_of(order.step.federation, reply.counts.get("cases", 0))


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).copy()
