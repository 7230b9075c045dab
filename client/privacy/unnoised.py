"""What leaves without noise, by name: each such reply is a line of the privacy account, and no epsilon covers it.

An account is kept where the hospital's policy sets a budget or demands privacy, and from a cohort's first private step
on; elsewhere no reply carries noise, `sent.jsonl` lists every one, and nothing is written here. Whatever the gate lets
out then is a line before it leaves: scores, statistics, updates without noise, and of a private step its losses and
counts. ``policy.privacy.strict`` lets none of them out: the coordinator gets a code, and noised updates alone leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.policy.policy import Policy, demands_privacy
from client.privacy.spending import FILE, UNNOISED, AccountProblem, begin
from client.vault.ending import check_uncut, end_of, note_last
from client.vault.lock import alone
from common.config.privacy import cohort_of, score_cohort_of, scores_are_noised
from common.config.run import PARTS
from common.errors import FedgraftError, PolicyRefusal
from common.protocol.messages import Order, Reply
from common.store.ledger import append_line

NOISE = "declined.noise"
KINDS = {  # what left -> what it is, and what it may tell
    "counts": "numbers of patients and of batches: how many there are",
    "curves": "sums for survival curves, calibration and thresholds, of a test or validation set",
    "gram": "Gram sums of a ridge fit: means and products of columns",
    "grid": "a histogram of event times",
    "keepsakes": "sums over patients at a step's end, such as squared gradients, that later steps go on from",
    "labels": "counts of labels",
    "losses": "sums of training losses, and numbers of patients and batches, beside a noised update",
    "moments": "means and variances of columns",
    "newton": "gradients and Hessians of an exact fit",
    "paired": "sums, squares and cross sums of two models' scores of the same test patients",
    "scores": "sums of scores of a test set",
    "statistics": "histograms of records, outcomes and images, in a file that a person sends or as a step",
    "thresholds": "counts of voxels by score",
    "update": "an adapter's update, without any noise",
    "validation": "sums of scores of a validation set, by which rounds are chosen and settings are tuned",
}


def check_strict(policy: Policy, what: str) -> None:
    """Raise PolicyRefusal where a hospital lets nothing out without noise."""
    if policy.privacy.strict:
        raise PolicyRefusal(
            NOISE, f"policy.privacy.strict lets nothing leave without noise; the order asks for {KINDS[what]}."
        )


def enter(vault: Path, policy: Policy, order: Order, what: str) -> None:
    """A line for a reply that is about to leave without noise, where an account is kept; on disk before it leaves.

    Its cost does not grow with what the account says: the chain is read by whoever charges.

    Raises:
        AccountProblem: the account was cut, or its last line was changed.
    """
    asked = {"run": order.run, "step": order.step.name, "round": order.round, "subset": order.subset}
    _enter(vault, policy, {"what": what, **asked})


def enter_file(vault: Path, policy: Policy) -> None:
    """The same for a file of statistics, which no order asks for. Raises AccountProblem."""
    _enter(vault, policy, {"what": "statistics", "run": "", "step": "", "round": 0, "subset": ""})


def _enter(vault: Path, policy: Policy, line: Mapping[str, Any]) -> None:
    path = vault / FILE
    if not (demands_privacy(policy) or path.exists() or end_of(path).exists()):
        return
    with alone(path):
        try:
            check_uncut(path)
            if not path.exists() or path.stat().st_size == 0:
                begin(vault)
            note_last(path, append_line(path, UNNOISED, dict(line)))
        except FedgraftError as error:
            raise AccountProblem(f"{path} cannot be continued ({error}); nothing was sent.") from error


def described(policy: Policy, order: Order, reply: Reply) -> tuple[Reply, str]:
    """The answer to what a center holds, and what it tells without noise: a strict hospital tells public bounds."""
    if not policy.privacy.strict:
        return reply, "labels" if reply.sums else "counts"
    spec = order.step.privacy
    bound = 0 if spec is None else cohort_of(spec, reply.center)
    scored = 0 if spec is None or not scores_are_noised(spec) else score_cohort_of(spec, reply.center)
    return replace(reply, sums={}, counts={**dict.fromkeys(PARTS, scored), "train": bound}), ""


def scored(order: Order) -> str:
    """What an order for scores tells, of `KINDS`."""
    return "validation" if order.subset == "validation" else "curves" if order.wants_curves else "scores"


def trained(order: Order, reply: Reply, *, is_noised: bool) -> str:
    """What a training reply tells without noise, of `KINDS`; nothing where a noised state leaves alone."""
    if not is_noised:
        return "update"
    return "losses" if reply.sums else ""  # its counts are public bounds
