"""What a run's frozen model grew to: every base with its stage, what that weighs, and who made the same digest."""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError
from common.model.merging import mergeable_parts
from common.model.state import bytes_of
from common.store.bank import AdapterBank
from common.store.bases import Bases
from common.store.ledger import Ledger
from server.bases.grown import GROWN
from server.run.folder import RunFolder


def listed(path: Path) -> str:
    """The bases of a run as text, the root first. Raises ConfigError where there is no run."""
    folder = RunFolder(path)
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    started = ledger.events("run_started")
    if not started:
        raise ConfigError(f"{path} holds no run; name a run's folder, as runs/medseqft.")
    root = str(started[0]["base"])
    lines = [f"root      {root}"]
    told = {event["base"]: event for event in ledger.events(GROWN)}
    for digest, ref in Bases(bank).known().items():
        entry = bank.entry(ref.merged[-1])
        parts = mergeable_parts(entry.step)
        state = bank.get(entry.key)
        size = bytes_of(tensor for name, tensor in state.items() if name.partition("/")[0] in parts)
        codes = told.get(digest, {}).get("centers", {})
        same = f"; the same at {sum(code == 'ok' for code in codes.values())} of {len(codes)} centers" if codes else ""
        lines.append(
            f"stage {len(ref.merged):<3} {digest}  {entry.step.name} ({'+'.join(parts)}), {size:,} bytes{same}"
        )
    return "\n".join(lines)
