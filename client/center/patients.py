"""Who is at a center, who of them is on which side of a step's split, and their prepared cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.center.config import CenterConfig
from client.center.resident import CASE_SETS, cases_at, data_key, drop_oldest, kept
from client.data.case import Case, untold_of
from client.data.dataset import CaseSet, targets_of, trainable, usable
from client.data.images.cache import VolumeCache
from client.privacy.sums import labels_of
from client.vault.cohort import read_cohort
from client.vault.erased import hold_back
from common.backbones.base import Tokenizer
from common.config.step import Step
from common.errors import DataError
from common.protocol.messages import Order, Sums
from common.tasks import build_task


def everyone_at(config: CenterConfig, vault: Path) -> list[Case]:
    """The center's own patients: what the split is dealt over."""
    return hold_back(
        cases_at(config.root, config.code, config.mapping, config.layout),
        cohort=read_cohort(vault),
        modalities=config.modalities,
    )


def part_of(everyone: Sequence[Case], part: Mapping[str, str], step: Step, name: str) -> list[Case]:
    """Cases of one part of the center's split that the step can use, and, but for the test, that can train it.

    Args:
        part: by patient, of everyone; what a step can use moves nobody.

    Raises:
        DataError: the step needs the outcome, and no patient's can be used.
    """
    if step.task.kind == "prognosis" and (untold := untold_of(everyone)):
        raise DataError(untold)
    found = [case for case in everyone if part[case.patient] == name and usable(case, step)]
    return found if name == "test" else [case for case in found if trainable(case, step)]


def prepared(cases: Sequence[Case], order: Order, config: CenterConfig, *, tokenizer: Tokenizer) -> CaseSet:
    """The cases decoded and cropped, kept in this process for steps that see the same data."""
    patients = tuple(case.patient for case in cases)
    key = (config.root, config.cache, order.base, order.skip_unreadable, data_key(order.step), patients)
    known = kept(CASE_SETS, key)
    if known is not None:
        return known
    found = CaseSet(
        cases,
        order.step,
        tokenizer=tokenizer,
        cache=VolumeCache(Path(config.cache), most_bytes=config.cache_gb * 1e9),
        skip_unreadable=order.skip_unreadable,
    )
    drop_oldest(CASE_SETS, room_for=found.nbytes)
    CASE_SETS[key] = found
    return found


def label_sums(cases: Sequence[Case], step: Step, *, minimum: int = 1) -> Sums:
    """The task's counts over the cases' labels; none without rounds.

    Args:
        minimum: what a few of them share is made common before it is counted; the gate does the rest.
    """
    task = build_task(step.task)
    if step.rounds == 0 or not task.label_shapes or len(cases) < minimum:
        return {}
    return labels_of(task, targets_of(cases, step), minimum=minimum)
