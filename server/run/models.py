"""Models to be scored and nothing trained: steps that are made of a bank, which a run's ``model`` names.

A bank is a run's folder or an exported one, whose signature is checked. Each of its adapters in use becomes a step of
no rounds; with ``compare_with``, the second bank's answer to the same question becomes a step before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from common.config.declared import harmonizes
from common.config.load import plain
from common.config.run import BackboneSpec, Data, Run, Split
from common.config.step import Step
from common.config.view import View
from common.errors import BankError, FedgraftError
from common.store.bank import AdapterBank, Entry
from common.store.exported import bank_in, check_export, export_of, split_bank
from common.store.ledger import Ledger
from common.store.tested import known_by_key
from common.tasks import question_of

EARLIER = "_earlier"  # after a lineage's name, where both models have the same


@dataclass(frozen=True)
class Source:
    """A bank to take models from.

    Args:
        name: as the report calls it.
        known: by key, what the federation learned from sums to read outputs by.
        config: of the run that made it; of an export its manifest.
    """

    name: str
    bank: AdapterBank
    known: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    lineage: str | None = None


@dataclass(frozen=True)
class Model:
    """One adapter of a bank, as a step of this run scores it."""

    step: str
    source: Source
    entry: Entry


def add_models(run: Run, overrides: Sequence[str]) -> None:
    """Make the steps that a run's ``model`` and ``compare_with`` ask for; with the bank's own frozen model, and its
    data and split where the command line says nothing of them.

    Raises:
        BankError: a bank cannot be read, was changed, or has no answer to a question that is compared.
    """
    models = models_of(run)
    run.steps = {one.step: _scored(one) for one in models}
    if run.compare_with is not None:
        for first, second in zip(models[::2], models[1::2], strict=True):
            run.steps[second.step].compared_with = first.step
    _as_it_was_trained(run, models[-1].source, overrides)


def models_of(run: Run) -> list[Model]:
    """The models that a run scores; with ``compare_with`` each after the one that it is compared with."""
    assert run.model is not None
    second = open_source(run.model)
    entries = _entries(second)
    if run.compare_with is None:
        return [Model(entry.lineage, second, entry) for entry in entries]
    first = open_source(run.compare_with)
    found: list[Model] = []
    for entry in entries:
        other = _counterpart(first, entry, named=run.model)
        name = other.lineage if other.lineage != entry.lineage else f"{other.lineage}{EARLIER}"
        found += [Model(name, first, other), Model(entry.lineage, second, entry)]
    return found


def open_source(given: str) -> Source:
    """The bank that ``PATH`` or ``PATH:LINEAGE`` names. Raises BankError for what is none."""
    path, lineage = split_bank(given)
    folder, top = bank_in(path), export_of(path)
    if folder is None:
        raise BankError(
            f"{given} is no adapter bank: it has no heads.json. Name a run's folder (runs/NAME), an exported one, or "
            "one adapter of it (runs/NAME:LINEAGE)."
        )
    if top is not None:
        manifest = check_export(top)
        known = {key: card.get("known", {}) for key, card in manifest["adapters"].items()}
        return Source(path.name, AdapterBank(folder), known, manifest, lineage)
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(folder.parent / "config.yaml"))
        known = known_by_key(Ledger(folder.parent / "ledger.jsonl").events())
    except (OSError, FedgraftError) as error:
        raise BankError(f"{given} has a bank and no run beside it ({error}); name the run's folder.") from error
    return Source(path.name, AdapterBank(folder), known, dict(config), lineage)


def _entries(source: Source) -> list[Entry]:
    """The adapters in use, or the named lineage's. Raises BankError where there is none."""
    heads = source.bank.heads()
    keys = [source.bank.head(source.lineage)] if source.lineage is not None else list(heads.values())
    if not keys:
        raise BankError(f"{source.name} has learned nothing: there is no model to score.")
    return [source.bank.entry(key) for key in keys]


def _counterpart(first: Source, entry: Entry, *, named: str) -> Entry:
    """The first bank's adapter that answers the same question as an entry of the second."""
    fitting = [one for one in _entries(first) if _is_about_the_same(one, entry)]
    same = [one for one in fitting if one.lineage == entry.lineage] or fitting
    if not same:
        raise BankError(
            f"compare_with: {first.name} has no answer to what '{entry.lineage}' of {named} answers "
            f"({entry.step.task.kind} on {entry.step.region}); it has {first.bank.learned()}. Name one adapter of "
            "each, as model=runs/NAME:LINEAGE."
        )
    if same[-1].key == entry.key:
        raise BankError(
            f"compare_with: '{entry.lineage}' is the same adapter, {entry.key[:12]}, in both banks; name another one."
        )
    return same[-1]


def _is_about_the_same(one: Entry, other: Entry) -> bool:
    return question_of(one.step.task) == question_of(other.step.task) and one.step.region == other.step.region


def _scored(model: Model) -> Step:
    """A learned step as one of no rounds, at every center. Raises BankError for one that stands on grown bases."""
    step = model.entry.step
    if step.stands_on is not None:
        raise BankError(
            f"'{model.entry.lineage}' of {model.source.name} stands on the frozen model with '{step.stands_on}' merged "
            "into it, which an evaluation alone does not make; continue that run with continues=NAME instead."
        )
    if harmonizes(step):
        raise BankError(
            f"'{model.entry.lineage}' of {model.source.name} reads features that were harmonized by center, and a bank "
            "holds no center's location and scale: it is scored in the run that fitted it."
        )
    return replace(
        step,
        name=model.step,
        rounds=0,
        budget="",
        methods=[],
        privacy=None,
        starts_from=None,
        writes=None,
        train_parts=["*"],
        evaluate_at=["*"],
        centers=["*"],
    )


def _as_it_was_trained(run: Run, source: Source, overrides: Sequence[str]) -> None:
    """The frozen model of the bank, and the data and the split of its run where nothing is said of them."""
    files = {"weights": run.backbone.weights, "text_folder": run.backbone.text_folder}
    given = {name: value for name, value in files.items() if value is not None}
    run.backbone = replace(plain(BackboneSpec, dict(source.config["backbone"])), **given)
    data = source.config.get("data")
    if data is None:  # an export says nothing of anybody's data
        return
    if not any(override.lstrip("+").startswith("data") for override in overrides):
        view = data["view"]
        run.data = plain(Data, {**data, "view": None})
        run.data.view = None if view is None else plain(View, view)
    elif not any("data.split" in override for override in overrides):
        run.data.split = plain(Split, data["split"])
