"""A run that continues another: it begins with that run's adapters, and hospitals read the shelves that it left.

All that is needed later stands in the run's own first row: the other folder may be gone by then.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

from common.config.run import Run
from common.errors import ConfigError
from common.store.bank import AdapterBank
from common.store.bases import Bases
from common.store.ledger import Ledger
from server.centers.roster import Roster
from server.run.folder import RunFolder
from server.run.lineages import heads_of
from server.run.models import models_of

READ_BY = ("temperature", "baseline")  # what a model's outputs are read by, as its own federation found it


def take_over(folder: RunFolder, name: str, *, base: str) -> dict[str, Any]:
    """Copy the heads of the run ``name``, which lies beside this one, into this run's bank.

    Returns its name and id, its heads by lineage, and the last rounds that count: step -> center -> round.

    Raises:
        ConfigError: there is no such run, it has learned nothing, or it has another frozen model.
    """
    other = RunFolder(folder.path.parent / name)
    ledger = Ledger(other.ledger)
    started = ledger.events("run_started")
    heads = heads_of(ledger)
    if not started or not started[0].get("id") or not heads or other.path == folder.path:
        raise ConfigError(
            f"continues={name}: {other.path} holds no other run that has learned something; name a run of the same "
            "folder of runs, or leave continues out."
        )
    if started[0]["base"] != base:
        raise ConfigError(
            f"continues={name}: that run has frozen model {started[0]['base'][:12]}, this one {base[:12]}; an adapter "
            "fits the one that it was trained on."
        )
    bank, source = AdapterBank(folder.bank), AdapterBank(other.bank)
    _copy(source, bank, heads.values())
    bank.set_heads({**heads, **bank.heads()})
    return {"run": name, "id": started[0]["id"], "heads": heads, "used": _used(ledger)}


def take_models(folder: RunFolder, run: Run, *, base: str) -> dict[str, Any]:
    """Copy the adapters that a run scores into its bank: step -> the bank and the key that it is of, and what outputs
    are read by.

    Raises:
        ConfigError: one was trained on another frozen model.
    """
    bank, found = AdapterBank(folder.bank), {}
    for model in models_of(run):
        if model.entry.base != base:
            raise ConfigError(
                f"'{model.entry.lineage}' of {model.source.name} was trained on frozen model {model.entry.base[:12]}, "
                f"this run has {base[:12]}; an adapter fits the one that it was trained on. Name its weights with "
                "backbone.weights=FILE."
            )
        _copy(model.source.bank, bank, [model.entry.key])
        known = {name: value for name, value in model.source.known.get(model.entry.key, {}).items() if name in READ_BY}
        found[model.step] = {
            "bank": model.source.name,
            "lineage": model.entry.lineage,
            "key": model.entry.key,
            "trained_at": list(model.entry.centers),
            "known": known,
        }
    return found


def models_taken(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """The same of a run that has begun; nothing of one that trains its own."""
    started = ledger.events("run_started")
    return dict(started[0].get("models", {})) if started else {}


def _copy(source: AdapterBank, bank: AdapterBank, keys: Iterable[str]) -> None:
    """Entries, with the bases that they stand on and the stages that these are made of."""
    wanted, found = list(keys), Bases(source)
    for base in {source.entry(key).base for key in wanted}:
        for digest in found.chain(base):
            ref = found.ref(digest)
            assert ref is not None
            Bases(bank).keep(digest, ref)
            wanted += ref.merged
    for key in dict.fromkeys(wanted):
        source.get(key)  # checked against its hash
        if not bank.holds(key):
            shutil.copytree(source.folder / key, bank.folder / key, dirs_exist_ok=True)


def _used(ledger: Ledger) -> dict[str, dict[str, int]]:
    roster = Roster(ledger)
    return {
        event["step"]: {
            center: last
            for center in sorted(roster.met)
            if (last := roster.last_used(center, event["step"], upto=event["kept_round"]))
        }
        for event in ledger.events("step_finished")
    }
