"""What of a center's statistics may be told: histograms through the gate, over patients whom the release record names.

The same rules as for a reply: no cell, and no remainder, of fewer patients than the minimum; over the same patients as
every earlier exact answer, or ones that differ by enough; counts in whole steps; a line in the record of what left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.data.case import HECKTOR, Case
from client.policy.orders import allows
from client.policy.policy import Policy, demands_privacy
from client.privacy.record import TARGET, Question, chosen
from client.privacy.release import Minimum, released
from client.privacy.subgroups import tellable
from client.statistics.measured import Values, counted, measured
from client.vault.cohort import begin
from common.data.quantities import FORMAT, IMAGE, QUANTITIES
from common.data.records import SCHEMA
from common.data.subgroups import LEVELS
from common.errors import PolicyRefusal
from common.protocol.messages import TOO_FEW_CASES, Reply, Sums

KIND = "statistics"


def question_of_statistics() -> Question:
    """Each variable and image quantity, and the targets that label sums may be of: two answers that share one meet."""
    targets = {f"{TARGET}classification|{name}" for name in SCHEMA} | {f"{TARGET}prognosis|"}
    targets |= {f"{TARGET}segmentation|{structure}" for structure in HECKTOR}
    return Question("rows", frozenset({*QUANTITIES, *targets}))


def statistics_of(code: str, cases: Sequence[Case], *, policy: Policy, vault: Path, minimum: Minimum) -> dict[str, Any]:
    """What the center tells: ``histograms`` of everybody, and of images ``by_scanner``.

    Raises:
        PolicyRefusal: the policy lets no statistics out, there are too few patients, or they differ by a few from
            those of an earlier answer.
    """
    _check(policy)
    if len(cases) < minimum.cell:
        raise PolicyRefusal(
            TOO_FEW_CASES,
            f"Statistics of {len(cases)} patients; policy.minimum_cell is {minimum.cell}.",
        )
    begin(vault)
    picked = chosen(question_of_statistics(), cases, vault=vault, minimum=minimum.cell)
    values, unreadable = measured(picked.cases)
    sums, merged = gated(code, values, minimum=minimum)
    told = released(Reply(code, counts={"cases": len(values), "skipped": unreadable}), minimum=minimum).counts
    return {
        "format": FORMAT,
        "center": code,
        "minimum": minimum.cell,
        "cases": told["cases"],
        "unreadable": told["skipped"],
        "merged": merged,
        "histograms": _plain(sums),
        "by_scanner": {
            level: {name: row for name, row in _plain(own).items() if QUANTITIES[name].source == IMAGE}
            for level, own in _by_scanner(code, picked.cases, values, vault=vault, minimum=minimum).items()
        },
    }


def gated(code: str, values: Sequence[Values], *, minimum: Minimum) -> tuple[Sums, bool]:
    """Histograms as they may leave, and whether the gate changed any; one that may not is not there."""
    sums = counted(values)
    cells = [QUANTITIES[name].cells for name in sums]
    reply = released(Reply(code, sums=sums), minimum=minimum, cells=cells, over=len(values))
    return {name: row for name, row in reply.sums.items() if row.any()}, "merged" in reply.counts


def _by_scanner(
    code: str, cases: Sequence[Case], values: Sequence[Values], *, vault: Path, minimum: Minimum
) -> dict[str, Sums]:
    """Of each make of scanner that enough patients lay in; nothing where there is only one, which is everybody."""
    places = {level: [i for i, one in enumerate(values) if one.get("scanner") == level] for level in LEVELS["scanner"]}
    groups = {f"scanner={level}": own for level, own in places.items() if own}
    if len(groups) < 2:
        return {}
    kept = tellable(question_of_statistics(), cases, groups, vault=vault, minimum=minimum.cell)
    return {
        level.partition("=")[2]: gated(code, [values[i] for i in own], minimum=minimum)[0]
        for level, own in kept.items()
    }


def _check(policy: Policy) -> None:
    if policy.privacy.strict or demands_privacy(policy):
        raise PolicyRefusal(
            "declined.noise",
            "policy.privacy asks for noise on what leaves; statistics carry none, so none are written.",
        )
    if policy.require_secure_aggregation:
        raise PolicyRefusal(
            "declined.secure_aggregation",
            "policy.require_secure_aggregation lets out secure sums only; statistics are of this hospital alone, so "
            "none are written.",
        )
    if not allows(policy.sums, "labels"):
        raise PolicyRefusal(
            "declined.sums", f"policy.sums allows {policy.sums}; statistics are counts of labels and records: 'labels'."
        )


def _plain(sums: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: [round(float(count)) for count in row] for name, row in sums.items()}
