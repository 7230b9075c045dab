"""Stages: a finished step that the coordinator sends to be merged into the frozen model, kept in the vault."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from client.center.config import CenterConfig
from client.center.models import backbone_of, bases_of, model_of
from client.policy import check_order
from client.policy.start import check_stage
from client.vault.room import check_room
from common.config.step import Step
from common.errors import BackboneError, BaseMissing
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order, Reply
from common.store.bank import Entry
from common.store.bases import BaseRef

if TYPE_CHECKING:
    from client.center.center import Center

log = logging.getLogger("fedgraft.center")


def take_stage(center: Center, order: Order) -> Reply:
    """Keep a finished step's adapter and merge it into the frozen model: a base for later steps to stand on.

    Nothing of an earlier base changes, and no patient is looked at. Raises as `keep_stage`, or what the policy says.
    """
    check_order(center.config.policy, order)
    check_stage(center.config.policy, order, center.shelf(order))
    place = bases_of(center.config).bank.folder / order.stage
    check_room(center.vault, place, most_gb=center.config.policy.maximum_vault_gb)
    digest = keep_stage(center.config, order)
    log.info("step=%s center=%s base=%s merged=%s", order.step.name, center.code, digest[:12], len(order.merged) + 1)
    return center.let_out(order, Reply(center.code), what="")


def keep_stage(config: CenterConfig, order: Order) -> str:
    """Store the stage that an order brings and merge it into the order's base; the new base's digest.

    Raises:
        BaseMissing: a stage before it is missing.
        BankError: what the order brings is not the entry that it names.
        BackboneError: the new base has another digest than the server's.
    """
    before, bases = backbone_of(config, order), bases_of(config)
    bases.bank.keep(order.step, order.state, key=order.stage, base=order.base, parents=order.parents)
    digest, _ = bases.grow(order.base, before, order.stage, root=order.first_base)
    if digest != order.grown:
        # Kept all the same: orders on that base are then answered by a code, and the stages are not sent again.
        bases.keep(order.grown, BaseRef(order.first_base, (*order.merged, order.stage)))
        raise BackboneError(
            f"Stage '{order.step.name}' makes base {digest[:12]} here and {order.grown[:12]} at the server; this "
            "center cannot stand on it. The frozen model, or the release, differs on one side."
        )
    return digest


@dataclass(frozen=True)
class KeptStages:
    """The finished steps in a center's vault, as a job asks for them (`client.training.job.Stages`)."""

    config: CenterConfig
    order: Order

    def step(self, key: str) -> Step:
        """What a finished step was. Raises BaseMissing for one that was not sent."""
        return self._entry(key).step

    def model(self, key: str) -> AdaptedModel:
        """A finished step's model on the base that it stood on, in evaluation mode. Raises BaseMissing."""
        entry, bases = self._entry(key), bases_of(self.config)
        root = self.order.first_base
        ref = bases.base_of(root, entry.base)
        order = replace(
            self.order, step=entry.step, base=entry.base, merged=list(ref.merged), state=bases.bank.get(key)
        )
        return model_of(self.config, replace(order, root=root if ref.merged else ""))

    def _entry(self, key: str) -> Entry:
        bank = bases_of(self.config).bank
        if not bank.holds(key):
            raise BaseMissing(f"The finished step {key[:12]}, which this one is taught by, is not here; it is sent.")
        return bank.entry(key)
