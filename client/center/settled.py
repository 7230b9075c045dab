"""From a job that is done to the reply that leaves: what trained and is not local, what methods declare, sums, counts.

Under noise neither losses nor how many were drawn are told, and counts are the plan's public numbers.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from client.center.config import CenterConfig
from client.policy.start import keep_own
from client.training.job import Job
from client.training.loop import FitLog
from client.vault.downlink import outgoing
from client.vault.standing import note_trained
from client.vault.vault import Vault
from common.adapters.lowrank import cut_to_own_rank
from common.protocol.declaration import sent_back
from common.protocol.messages import Reply, State

log = logging.getLogger("fedgraft.center")


def settled(job: Job, done: FitLog, *, config: CenterConfig, vault: Path) -> Reply:
    """The reply, and what the vault keeps of the round: methods' entries, what a policy must know, that it was trained.

    Args:
        vault: the center's folder in its vault.
    """
    order, shelf = job.order, Vault(vault, job.order)
    state = {name: t for name, t in job.model.state().items() if name.partition("/")[0] in done.parts}
    leaving = {n: state[n] for n in sorted(sent_back(state, order.step, round=order.round))}
    keep_own(config.policy, order, leaving, shelf)
    extra: State = {}
    told: dict[str, int] = {}
    for method in job.methods:
        extra |= method.end(job, leaving)
        told |= method.counts()
    sums = {"fit.loss": done.loss, "fit.cases": done.cases, "fit.batches": done.batches}
    counts = {"cases": len(job.cases), "batches": done.batches, "skipped": job.cases.skipped}
    if job.noise is not None:
        sums, counts = {}, job.noise.counts
    shown = f"{done.loss:.4f}" if sums else "untold"
    log.info("step=%s round=%s center=%s loss=%s", order.step.name, order.round, config.code, shown)
    leaving = cut_to_own_rank(outgoing(order, leaving, shelf), order.step.adapter.parts, config.code)
    standing = note_trained(vault, order)
    return Reply(
        config.code,
        state=leaving,
        extra=extra,
        sums={name: np.array(value, np.float64) for name, value in sums.items()},
        counts={**counts, **told, **standing},
    )
