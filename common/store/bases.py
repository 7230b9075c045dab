"""Bases that grew: a frozen model with finished steps merged into it, by digest, beside the adapters that made them.

A `BaseRef` is what a base is made of: the digest of the first frozen model, the root, and the keys of the entries that
were merged into it, in order. A base is never stored: whoever has the root and the entries makes it again, bit by bit
(`common.model.merging`), and the digest proves it. Older bases stay usable, because merging changes none of them.

A *replacement* is the same with a ``full`` part: its tensors take the place of the base's, so a fully trained stage of
self-supervised learning is one key like any other. Let the stage be a step with a ``full`` part (``tensors: ["*"]``),
and let the next stage, and every task on the trained model, say ``stands_on: <that step's name>``: the server merges
once at the stage's end, centers are sent it, and orders name the new digest. Nothing else is needed.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from common.backbones import backbone_digest
from common.backbones.base import Backbone
from common.errors import BackboneError, BankError, BaseMissing
from common.model.merging import merged
from common.store.bank import AdapterBank
from common.store.sealed import DamagedFile, read_sealed, write_sealed

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseRef:
    """What a base is made of.

    Args:
        root: digest of the first frozen model.
        merged: keys of the entries that were merged into it, in their order; each stood on the base before it.
    """

    root: str
    merged: tuple[str, ...] = ()

    def then(self, key: str) -> BaseRef:
        """The base after one more entry. Raises BackboneError for one that is in it already."""
        if key in self.merged:
            raise BackboneError(
                f"Adapter {key[:12]} is merged into this base already (stage {self.merged.index(key) + 1} of "
                f"{len(self.merged)}); each stage is merged once."
            )
        return BaseRef(self.root, (*self.merged, key))


class Bases:
    """The bases of a bank; one small file each in its folder ``bases``."""

    def __init__(self, bank: AdapterBank):
        self.bank = bank

    def ref(self, digest: str) -> BaseRef | None:
        """What a grown base is made of; None: none of this digest is known here."""
        if not DIGEST.fullmatch(digest) or not (path := self.path(digest)).exists():
            return None
        try:
            found = read_sealed(path, remedy="restore it from a backup, or delete it to have the base sent again.")
            return BaseRef(str(found["root"]), tuple(str(key) for key in found["merged"]))
        except (DamagedFile, KeyError, TypeError) as error:
            raise BankError(f"{path} cannot be read: {error}") from error

    def path(self, digest: str) -> Path:
        """A base's file."""
        return self.bank.folder / "bases" / f"{digest}.json"

    def known(self) -> dict[str, BaseRef]:
        """Every grown base by its digest, fewest stages first."""
        found = {path.stem: self.ref(path.stem) for path in sorted((self.bank.folder / "bases").glob("*.json"))}
        refs = {digest: ref for digest, ref in found.items() if ref is not None}
        return dict(sorted(refs.items(), key=lambda item: len(item[1].merged)))

    def chain(self, digest: str) -> list[str]:
        """Digests of the grown bases that lead to a base, itself included, fewest stages first; none for a root."""
        ref = self.ref(digest)
        if ref is None:
            return []
        before = self.bank.entry(ref.merged[-1]).base
        return [*self.chain(before), digest]

    def keep(self, digest: str, ref: BaseRef) -> None:
        """Remember what a base is made of."""
        write_sealed(self.path(digest), asdict(ref))

    def base_of(self, root: str, digest: str) -> BaseRef:
        """What the base of a digest is made of, the root itself included.

        Raises:
            BaseMissing: no such base is known here.
            BackboneError: it stands on another root.
        """
        if digest == root:
            return BaseRef(root)
        ref = self.ref(digest)
        if ref is None or not all(self.bank.holds(key) for key in ref.merged):
            raise BaseMissing(
                f"The frozen model {digest[:12]} grew from {root[:12]} by stages that are not all here; they are sent "
                "in their order, and the base is made again from them."
            )
        if ref.root != root:
            raise BackboneError(
                f"The frozen model {digest[:12]} grew from {ref.root[:12]}, this one is {root[:12]}: use the weights "
                "that its run began with."
            )
        return ref

    def build(self, digest: str, root: Backbone, *, root_digest: str) -> Backbone:
        """The frozen model of a digest, made from the root and the entries; the root itself is left as it is.

        Raises:
            BaseMissing: not all of it is here.
            BackboneError: what comes out has another digest, or another root is asked for.
            BankError: an entry is damaged.
        """
        ref = self.base_of(root_digest, digest)
        return self._checked(self.made(ref, root), digest) if ref.merged else root

    def made(self, ref: BaseRef, root: Backbone) -> Backbone:
        """A base's entries merged into a model that is taken for its root, whatever digest comes out."""
        backbone = root
        for key in ref.merged:
            backbone = merged(backbone, self.bank.entry(key).step, self.bank.get(key))
        return backbone

    def grow(self, before: str, backbone: Backbone, key: str, *, root: str) -> tuple[str, Backbone]:
        """Merge an entry into the base that it stands on; the new base's digest and model, remembered here.

        An entry that changes nothing (its start was kept) makes no new base: the one before goes on.

        Args:
            before: digest of ``backbone``.
            root: digest of the first frozen model.

        Raises:
            BackboneError: the entry stands on another base, or is merged already.
        """
        entry = self.bank.entry(key)
        if entry.base != before:
            raise BackboneError(
                f"Adapter {key[:12]} stands on the frozen model {entry.base[:12]} and cannot be merged into "
                f"{before[:12]}; the stages of a base are merged in their order."
            )
        ref = self.base_of(root, before).then(key)
        grown = merged(backbone, entry.step, self.bank.get(key))
        digest = backbone_digest(grown)
        if digest == before:
            return before, backbone
        self.keep(digest, ref)
        return digest, grown

    @staticmethod
    def _checked(backbone: Backbone, digest: str) -> Backbone:
        if (found := backbone_digest(backbone)) != digest:
            raise BackboneError(
                f"The stages of base {digest[:12]} make {found[:12]} on this machine: one of them, or the frozen "
                "model, is not what it was; restore the bank from a backup."
            )
        return backbone
