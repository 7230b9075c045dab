"""GrownBases: which frozen model each step of a run stands on, and the orders that let a center make it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.backbones.base import Backbone
from common.config.methods.standing import teachers_of
from common.config.step import Step
from common.errors import ConfigError
from common.protocol.messages import Order
from common.store.bank import AdapterBank
from common.store.bases import BaseRef, Bases
from common.store.ledger import Ledger

GROWN = "base_grown"


class GrownBases:
    """A run's bases: the root, and what grew from it step by step, as the ledger tells it.

    Args:
        root: the frozen model that the run's configuration names, and ``digest``, its own.
    """

    def __init__(self, bank: AdapterBank, ledger: Ledger, root: Backbone, digest: str):
        self.bases, self.ledger = Bases(bank), ledger
        self.root = digest
        self._made: dict[str, Backbone] = {digest: root}

    def digest_for(self, step: Step) -> str:
        """Digest of the base that a step stands on. Raises ConfigError where the step that makes it is not merged."""
        if step.stands_on is None:
            return self.root
        for event in self.ledger.events(GROWN, step=step.stands_on)[-1:]:
            return str(event["base"])
        raise ConfigError(
            f"Step '{step.name}' stands on '{step.stands_on}', which has not been merged into the frozen model yet; "
            "that happens when it ends."
        )

    def ref_for(self, step: Step) -> BaseRef:
        """What that base is made of."""
        return self.bases.base_of(self.root, self.digest_for(step))

    def backbone_for(self, step: Step) -> Backbone:
        """That base itself."""
        return self.backbone_of(self.digest_for(step))

    def backbone_of(self, digest: str) -> Backbone:
        """The base of a digest, made once."""
        if digest not in self._made:
            self._made[digest] = self.bases.build(digest, self._made[self.root], root_digest=self.root)
        return self._made[digest]

    def grow(self, key: str) -> tuple[str, BaseRef]:
        """Merge a committed entry into the base that it stands on; the new base's digest, and what it is made of."""
        before = self.bases.bank.entry(key).base
        digest, grown = self.bases.grow(before, self.backbone_of(before), key, root=self.root)
        self._made[digest] = grown
        return digest, self.bases.base_of(self.root, digest)

    def teacher_of(self, step: Step) -> str:
        """Key of the finished step whose model teaches this one; empty without one."""
        names = teachers_of(step)
        return str(self.ledger.events(GROWN, step=names[0])[-1]["key"]) if names else ""

    def stages(self, keys: Sequence[str], order: Callable[[Step, str], Order]) -> list[Order]:
        """The orders that bring finished steps to a center, each to be merged into the base that it stood on.

        Args:
            keys: in an order in which each stands on what is there.
            order: makes an order for a step on the base of a digest, without a state.
        """
        found = []
        for key in keys:
            entry = self.bases.bank.entry(key)
            asked = order(entry.step, entry.base)
            asked.state, asked.stage, asked.parents = self.bases.bank.get(key), key, list(entry.parents)
            asked.grown = self._after(key, [*asked.merged, key])
            found.append(asked)
        return found

    def _after(self, key: str, merged: Sequence[str]) -> str:
        """Digest of the base after an entry: as the ledger has it, or, of a run that is continued, the bank."""
        known = [str(event["base"]) for event in self.ledger.events(GROWN) if event["key"] == key]
        known += [digest for digest, ref in self.bases.known().items() if list(ref.merged) == list(merged)]
        return known[0] if known else self.bases.bank.entry(key).base
