"""A center leaves: what it gave to steps that are fitted from sums is taken out, exactly.

Ridge: its own Gram sums are subtracted, at once and without asking anyone. Cox, hazard and logistic: the step is marked
and fitted again without it when the run is started next, for no stored sum can say what the others' search would have
been. Either way the result equals a run that never had the center, and so do its scores, which are asked for again then
(`server.refitting`). A step trained by averaging cannot be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.numpy import load_file

from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.run import BackboneSpec
from common.config.step import Step
from common.errors import BankError, ConfigError, LedgerError
from common.exact.columns import add
from common.exact.ridge import ridge_from_sums
from common.exact.step import exact_part, objective_of, state_of
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.bases import Bases
from common.store.ledger import Ledger
from server.centers.roster import withdrawn
from server.learning.exact.questions import Question
from server.run.folder import RunFolder, alone_in
from server.run.probe import probe_output

SUBTRACTED, REFIT, TRAINED = "subtracted", "refit", "trained"


@dataclass(frozen=True)
class Withdrawal:
    """What happened to one step, as a sentence."""

    step: str
    how: str
    text: str


def withdraw(path: Path, center: str) -> list[Withdrawal]:
    """Take a center out of every step of a run that it trained.

    Raises:
        ConfigError: the center trained nothing, has left before, or hid its sums from the server; nothing is changed.
        LedgerError: the folder is not a run folder.
        RoundFailed: the run is going on.
    """
    folder = RunFolder(path)
    if not folder.config.exists():
        raise LedgerError(f"{path} is not a run folder: it has no config.yaml.")
    with alone_in(folder, patience_s=0.0):
        return _withdraw(folder, center)


def _withdraw(folder: RunFolder, center: str) -> list[Withdrawal]:
    ledger, bank = Ledger(folder.ledger), AdapterBank(folder.bank)
    trained = [event for event in ledger.events("step_finished") if center in centers_of(ledger, event["step"])]
    _check(ledger, center, trained)
    steps = {event["step"]: bank.entry(event["key"]).step for event in trained}
    plans = {name: _plan(step) for name, step in steps.items()}
    hidden = [n for n, how in plans.items() if how == SUBTRACTED and not _own_sums(folder, n, center).exists()]
    if hidden:
        raise ConfigError(
            f"{center}'s own sums of {_named(hidden)} are not here: they were hidden by secure sums or forgotten "
            "(federation.keep_sums=false), so the server cannot subtract what it never held by itself. Start a new run "
            "without the center."
        )
    done = [_leave(folder, ledger, bank, name, step, center) for name, step in steps.items()]
    ledger.append("center_withdrawn", {"center": center, "steps": {w.step: w.how for w in done}})
    for name in (w.step for w in done if w.how == SUBTRACTED):
        _own_sums(folder, name, center).unlink()
    return done


def centers_of(ledger: Ledger, step: str) -> list[str]:
    """Who trains a step now: the centers it began with, without those that were lost or have left."""
    started = ledger.events("step_started", step=step)
    lost = {center for event in ledger.events("newton_lost", step=step) for center in event["centers"]}
    gone = lost | set(withdrawn(ledger))
    return [center for center in (started[-1]["centers"] if started else []) if center not in gone]


def to_refit(ledger: Ledger) -> list[str]:
    """Steps that a withdrawal marked and that were not fitted again since, in their order."""
    marked: dict[str, bool] = {}
    for event in ledger.events():
        if event["kind"] == "center_withdrawn":
            marked |= {step: True for step, how in event["steps"].items() if how == REFIT}
        elif event["kind"] == "step_refitted":
            marked[event["step"]] = False
    return [step for step, waiting in marked.items() if waiting]


def to_rescore(ledger: Ledger) -> list[str]:
    """Steps that were fitted again without a center and not scored since, in their order."""
    marked: dict[str, bool] = {}
    for event in ledger.events():
        if event["kind"] in ("step_refitted", "step_rescored"):
            marked[event["step"]] = event["kind"] == "step_refitted"
    return [step for step, waiting in marked.items() if waiting]


def _check(ledger: Ledger, center: str, trained: Sequence[dict[str, Any]]) -> None:
    if center in withdrawn(ledger):
        raise ConfigError(f"{center} has left this run before; nothing of it is in the heads of its lineages.")
    if not trained:
        known = sorted({c for event in ledger.events("step_started") for c in event["centers"]})
        raise ConfigError(f"No finished step of this run was trained at '{center}'; centers: {', '.join(known)}.")


def _plan(step: Step) -> str:
    if step.federation.kind != "newton" or step.privacy is not None or step.federation.secure_aggregation:
        return TRAINED
    return SUBTRACTED if objective_of(step) is None else REFIT


def _own_sums(folder: RunFolder, step: str, center: str) -> Path:
    return folder.sums(step, Question(0).key, center)


def _leave(folder: RunFolder, ledger: Ledger, bank: AdapterBank, name: str, step: Step, center: str) -> Withdrawal:
    how = _plan(step)
    if how == TRAINED:
        by = _trained_by(step)
        text = f"{name}: trained by {by}; train it again in a new run without {center}."
    elif how == REFIT:
        text = f"{name}: will be fitted again without {center} when this run is started next (same command)."
    else:
        remaining = [c for c in centers_of(ledger, name) if c != center]
        if not remaining:
            raise ConfigError(f"{center} is the only center of step '{name}'; nothing would be left of it.")
        key = _subtract(folder, bank, name, step, center, remaining)
        ledger.append("step_refitted", {"step": name, "without": center, "key": key, "centers": remaining})
        text = (
            f"{name}: its sums are subtracted; the lineage's head is now {key[:12]}. It is scored again at the others "
            "when this run is started next (same command); until then it has no score."
        )
    return Withdrawal(name, how, text)


def _trained_by(step: Step) -> str:
    if step.privacy is not None:
        return "noised answers, which are not asked again"
    if step.federation.kind == "newton":
        return "secure sums, whose difference to others without it would be its own"
    return "averaging, which cannot be undone"


def _subtract(
    folder: RunFolder, bank: AdapterBank, name: str, step: Step, center: str, remaining: Sequence[str]
) -> str:
    """Total minus the center's own sums; then its file is deleted."""
    config: Any = OmegaConf.load(folder.config)
    root: Backbone = load_backbone(BackboneSpec(**OmegaConf.to_container(config.backbone)))  # type: ignore[arg-type]
    head = bank.head(step.writes or name)
    backbone = Bases(bank).build(bank.entry(head).base, root, root_digest=backbone_digest(root))
    absent = [c for c in remaining if not _own_sums(folder, name, c).exists()]
    if absent:
        raise BankError(f"The sums of {_named(absent)} in step '{name}' are missing; restore them from a backup.")
    total = add(load_file(_own_sums(folder, name, c)) for c in sorted([*remaining, center]))
    own = load_file(_own_sums(folder, name, center))
    left = {key: value - own[key] for key, value in total.items()}
    layout = AdaptedModel(backbone, step, seed=int(config.seed)).exact_layout
    fitted = ridge_from_sums(layout, left, penalty=step.federation.penalty)
    state = state_of(fitted, exact_part(step)[0])
    probe = probe_output(backbone, step, state, seed=int(config.seed))
    entry = bank.commit(step, state, base=bank.entry(head).base, parents=[head], centers=remaining, probe=probe)
    return entry.key


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
