"""AdapterBank: every adapter we ever learned, addressed by the hash of its content.

A folder per entry: ``state.safetensors`` (the tensors), ``probe.safetensors`` (its outputs on a synthetic input, to
prove later that nothing drifted), ``entry.json`` and, where methods keep something at a step's end, ``keepsakes/``. An
entry is never overwritten; lineages point at their head.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.backbones.base import tensors_digest
from common.config.load import step_from_json, step_to_json
from common.config.step import Step
from common.data.modality_sets import answers_from
from common.errors import BankError
from common.files import write_json, write_tensors
from common.protocol.messages import State
from common.store.sealed import DamagedFile, read_sealed, write_sealed
from common.tasks import question_of

FORMAT = 1
HEADS = "heads.json"  # which entry of each lineage is in use
KEPT = "keepsakes"  # in an entry's folder


@dataclass(frozen=True)
class Entry:
    """What is known of a committed adapter beside its tensors."""

    key: str
    lineage: str
    base: str
    state_hash: str
    step_json: str
    parents: list[str] = field(default_factory=list)
    centers: list[str] = field(default_factory=list)
    format: int = FORMAT

    @property
    def step(self) -> Step:
        """The step that made it."""
        return step_from_json(self.step_json)


class AdapterBank:
    """Adapter states on disk."""

    def __init__(self, folder: Path):
        self.folder = folder

    def commit(
        self,
        step: Step,
        state: Mapping[str, Tensor],
        *,
        base: str,
        parents: Sequence[str] = (),
        centers: Sequence[str] = (),
        probe: Tensor | None = None,
    ) -> Entry:
        """Store a step's final state and make it its lineage's head, the latest of all. The same content has the same
        key."""
        digest = tensors_digest(state)
        entry = Entry(
            key=_key(step_to_json(step), digest, base, parents),
            lineage=step.writes or step.name,
            base=base,
            state_hash=digest,
            step_json=step_to_json(step),
            parents=list(parents),
            centers=list(centers),
        )
        self._store(entry, state, probe)
        others = {lineage: key for lineage, key in self.heads().items() if lineage != entry.lineage}
        self.set_heads({**others, entry.lineage: entry.key})
        return entry

    def keep(self, step: Step, state: Mapping[str, Tensor], *, key: str, base: str, parents: Sequence[str]) -> Entry:
        """Store an entry that another bank committed, without making it a head.

        Raises:
            BankError: step, state, base and parents do not have this key.
        """
        digest, text = tensors_digest(state), step_to_json(step)
        if _key(text, digest, base, parents) != key:
            raise BankError(f"What was sent as adapter {key[:12]} is another one; nothing was stored.")
        entry = Entry(key, step.writes or step.name, base, digest, text, list(parents))
        self._store(entry, state, None)
        return entry

    def _store(self, entry: Entry, state: Mapping[str, Tensor], probe: Tensor | None) -> None:
        place = self.folder / entry.key
        if (place / "entry.json").exists():
            return
        write_tensors(place / "state.safetensors", state)
        if probe is not None:
            write_tensors(place / "probe.safetensors", {"output": probe})
        write_json(place / "entry.json", asdict(entry))

    def entry(self, key: str) -> Entry:
        """What is known of one adapter."""
        path = self.folder / key / "entry.json"
        if not path.exists():
            raise BankError(f"The bank at {self.folder} has no adapter {key[:12]}; it has {self._known()}.")
        try:
            stored = json.loads(path.read_text())
            if stored.get("format") != FORMAT:
                raise BankError(
                    f"Adapter {key[:12]} has bank format {stored.get('format')}; this release reads {FORMAT}."
                )
            entry = Entry(**stored)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BankError(f"{path} cannot be read ({error}); restore it from a backup.") from error
        if entry.key != key or _key(entry.step_json, entry.state_hash, entry.base, entry.parents) != key:
            raise BankError(f"{path} was changed after it was committed; restore it from a backup.")
        return entry

    def get(self, key: str) -> State:
        """The tensors of one adapter, checked against their hash."""
        entry = self.entry(key)
        path = self.folder / key / "state.safetensors"
        state = _load(path)
        if tensors_digest(state) != entry.state_hash:
            raise BankError(f"{path} does not have the hash it was committed with; restore it from a backup.")
        return state

    def probe(self, key: str) -> Tensor:
        """The outputs that the adapter gave on the synthetic probe when it was committed."""
        path = self.folder / key / "probe.safetensors"
        stored = _load(path)
        if "output" not in stored:
            raise BankError(f"{path} holds no output; restore it from a backup.")
        return stored["output"]

    def store_keepsake(self, key: str, kind: str, keepsake: Mapping[str, Tensor]) -> str:
        """Store what one kind of method goes on from after an adapter, beside it; returns its digest."""
        digest = tensors_digest(keepsake)
        write_tensors(self.folder / key / KEPT / f"{kind}-{digest}.safetensors", keepsake)
        return digest

    def keepsake(self, key: str, kind: str) -> State | None:
        """The same, checked against its digest; None where the adapter's step kept nothing for that kind."""
        for path in sorted((self.folder / key / KEPT).glob(f"{kind}-*.safetensors")):
            found = _load(path)
            if tensors_digest(found) != path.stem.removeprefix(f"{kind}-"):
                raise BankError(f"{path} does not have the hash in its name; restore it from a backup.")
            return found
        return None

    def bytes_of(self, key: str) -> int:
        """Bytes on disk that later steps go on from: an adapter's tensors, and what methods keep beside it."""
        place = self.folder / key
        return sum(path.stat().st_size for path in (place / "state.safetensors", *(place / KEPT).glob("*.safetensors")))

    def head(self, lineage: str) -> str:
        """The key that a lineage points at."""
        heads = self.heads()
        if lineage not in heads:
            raise BankError(
                f"Nothing was ever learned for '{lineage}'. Learned: {', '.join(sorted(heads)) or 'nothing'}."
            )
        return heads[lineage]

    def heads(self) -> dict[str, str]:
        """Every lineage's head; the lineage that was committed to last is the last one."""
        path = self.folder / HEADS
        if not path.exists():
            return {}
        remedy = "restore it from a backup; a run that is started again makes it anew from its ledger."
        try:
            found = read_sealed(path, remedy=remedy, unsealed=True)
        except DamagedFile as error:
            raise BankError(str(error)) from error
        if not isinstance(found, dict):
            raise BankError(f"{path} is no list of heads; {remedy}")
        return {str(lineage): str(key) for lineage, key in found.items()}

    def route(
        self,
        *,
        task: str,
        modalities: Sequence[str],
        region: str,
        about: str | None = None,
        center: str | None = None,
    ) -> str:
        """The head to use for a request, the most specific first: one that the center itself trained, then one that
        uses the most of the modalities that are present (all of its own, or those of one of its modes), then one of
        more centers, then the latest. Refuses what was never learned and says what was.

        Args:
            task, about: as in `common.tasks.Question`; None: whatever a task of that kind is about.
        """
        candidates = [
            (entry, key)
            for entry, key in ((self.entry(key), key) for key in self.heads().values())
            if _asked(entry.step, task, about)
            and entry.step.region == region
            and answers_from(entry.step, {*modalities})
        ]
        if not candidates:
            raise BankError(
                f"No adapter for {task}{f' of {about}' if about else ''} on {region} from {'+'.join(modalities)}. "
                f"Learned: {self.learned()}."
            )

        def fitness(item: tuple[Entry, str]) -> tuple[bool, int, int]:
            entry, _ = item
            own = center is not None and entry.centers == [center]
            shared = len(entry.centers)
            return own, answers_from(entry.step, {*modalities}), shared

        return max(reversed(candidates), key=fitness)[1]

    def holds(self, key: str) -> bool:
        """Whether an adapter is here."""
        return (self.folder / key / "entry.json").exists()

    def set_heads(self, heads: Mapping[str, str]) -> None:
        """Write every lineage's head."""
        write_sealed(self.folder / HEADS, dict(heads))

    def promote(self, lineage: str, key: str) -> None:
        """Point a lineage at another entry of the bank (also how a rollback is done)."""
        self.entry(key)
        self.set_heads({**self.heads(), lineage: key})

    def _known(self) -> str:
        names = sorted(path.parent.name[:12] for path in self.folder.glob("*/entry.json"))
        return ", ".join(names) or "nothing"

    def learned(self) -> str:
        """What every head is for, in words."""
        return "; ".join(_described(self.entry(key)) for key in self.heads().values()) or "nothing"


def _asked(step: Step, task: str, about: str | None) -> bool:
    question = question_of(step.task)
    return question.kind == task and about in (None, question.about)


def _described(entry: Entry) -> str:
    step = entry.step
    modes = " or ".join(step.modes or ["+".join(step.modalities)])
    return f"{step.task.kind} on {step.region} from {modes} ({entry.lineage})"


def _key(step_json: str, state_hash: str, base: str, parents: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([step_json, state_hash, base, list(parents)]).encode()).hexdigest()


def _load(path: Path) -> State:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BankError(f"{path} cannot be read ({error}); restore it from a backup.") from error
