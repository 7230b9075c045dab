"""Coordinator: what all steps of a run share, at the server."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.run import Run
from common.config.step import Step
from common.protocol.messages import Order
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from server.bases.grown import GrownBases
from server.centers.federation import Federation
from server.centers.roster import Roster
from server.evaluation.scoring import Scorer
from server.run.folder import RunFolder
from server.run.narration import Narrator


class Coordinator:
    """One run's shared things: the frozen model that it began with, the bank, the ledger and the federation."""

    def __init__(self, federation: Federation, run: Run, folder: RunFolder, narrator: Narrator):
        self.federation, self.run, self.folder, self.narrator = federation, run, folder, narrator
        torch.set_num_threads(run.runtime.threads)
        self.bank = AdapterBank(folder.bank)
        self.ledger = Ledger(folder.ledger)
        self.backbone: Backbone = load_backbone(run.backbone)
        self.base = backbone_digest(self.backbone)
        self.bases = GrownBases(self.bank, self.ledger, self.backbone, self.base)
        federation.stages = self.stage_orders
        self.scorer = Scorer(federation, folder, self.ledger)
        self.roster = federation.roster = Roster(self.ledger)

    def order(self, step: Step) -> Order:
        """An order for a step on the base that it stands on, without a state."""
        order = self._order_on(step, self.bases.digest_for(step))
        order.teacher = self.bases.teacher_of(step)
        return order

    def stage_orders(self, keys: Sequence[str]) -> list[Order]:
        """The orders that bring finished steps to a center: the stages of a base, in their order, or a teacher."""
        return self.bases.stages(keys, self._order_on)

    def _order_on(self, step: Step, base: str) -> Order:
        run, ref = self.run, self.bases.bases.base_of(self.base, base)
        return Order(
            step=step,
            seed=run.seed,
            round=0,
            backbone=run.backbone,
            base=base,
            root=ref.root if ref.merged else "",
            merged=list(ref.merged),
            split=run.data.split,
            skip_unreadable=run.data.skip_unreadable,
            minimum_cell=run.data.minimum_cell,
            run=self.run_id,
            continues=self.roster.continues,
        )

    @property
    def run_id(self) -> str:
        """The run's own id, from its ledger's first line; empty for a run that began before runs had one."""
        return run_id_of(self.ledger)


def run_id_of(ledger: Ledger) -> str:
    """A run's own id, from its ledger; empty for one that has not begun, or began before runs had one."""
    started = ledger.events("run_started")
    return str(started[0].get("id", "")) if started else ""
