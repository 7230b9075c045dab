"""study=phantom_prognosis: prognosis heads on frozen features, for every input, loss and way to learn.

Encoders are frozen, so every patient is encoded once per backbone and only the adapters after it are trained (UNICON's
post-model adaptation); that is what makes several hundred models affordable. Beside the arms stand the ceiling of the
true hazard, the same backbone frozen at random weights, and federated Newton: a linear Cox model, fitted exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from client.center.center import Center
from client.data.case import Case
from client.training.observation import observe
from common.backbones import backbone_digest, load_backbone
from common.backbones.base import Backbone
from common.config.adapter import Adapter, FusionPart, MlpPart
from common.config.load import compose_run
from common.config.run import Run, Split
from common.config.step import Selection, Step
from common.data.batch import CT, EHR
from common.data.records import encode_records, record_layout
from common.exact.columns import Layout, LinearModel, Rows, plain_rows
from common.files import write_json
from common.metrics import Estimate, Resampled, bootstrap_concordance, bootstrap_weights
from common.model.adapted import AdaptedModel
from common.protocol.messages import Order
from common.tasks import Observation
from server.run.folder import RunFolder
from simulations.comparison.baselines import baseline_order, train_pooled
from simulations.comparison.exact_arm import fit_chosen
from simulations.comparison.names import CENTRALIZED, FEDERATED, LOCAL, RANDOM, arm_of, label_of
from simulations.comparison.patients import open_centers
from simulations.studies.page import Page, Picture, Table
from simulations.virtual.centers import data_roots, write_centers
from simulations.virtual.features import Encoded, FeatureCenter, FeatureTable, feature_table, federated
from simulations.virtual.federate import worker_count
from simulations.virtual.pool import side_by_side

ARMS = (FEDERATED, CENTRALIZED, LOCAL)
MODALITIES = {"text": [EHR], "image": [CT], "image+text": [CT, EHR]}
NEWTON, RECORDS = "Newton on frozen features", "Newton on the record"
MARGIN = 0.02  # C-index, DESIGN section 8
PIXELS = 120


@dataclass
class PhantomPrognosisStudy:
    """Prognosis heads on frozen features of the phantom cohort, for every input, loss and way to learn."""

    kind: str = "phantom_prognosis"
    inputs: list[str] = field(default_factory=lambda: ["text", "image", "image+text"])  # what the models see
    losses: list[str] = field(default_factory=lambda: ["deephit", "mtlr", "cox"])  # of the prognosis heads
    folds: int = 5  # of the cross-validation
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # each a run of every cell
    rounds: int = 30  # and passes of the arms that are not federated
    batch: int = 16  # cases
    learning_rate: float = 1e-3  # AdamW's
    penalties: list[float] = field(default_factory=lambda: [3.0, 30.0, 300.0])  # of the Newton baseline
    draws: int = 1000  # of the bootstrap over patients


@dataclass(frozen=True)
class Cell:
    """One input, loss, fold and seed on one backbone: what a worker does at a time."""

    input: str
    loss: str
    fold: int
    seed: int
    random: bool = False

    @property
    def name(self) -> str:
        """For files."""
        return f"{'random-' if self.random else ''}{self.input}-{self.loss}-fold{self.fold}-seed{self.seed}"

    def records(self, folder: Path) -> Path:
        """Where its patients' risks are, in the study's folder."""
        return folder / "records" / f"{self.name}.json"


@dataclass
class Cohort:
    """Every patient with an outcome, in the order of centers and IDs."""

    patients: list[str]
    centers: np.ndarray
    fold: np.ndarray
    time: np.ndarray
    event: np.ndarray

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Pairs are formed within a center and fold: another fold's risks come from another model."""
        return list(zip(self.centers.tolist(), self.fold.tolist(), strict=True))


Risks = dict[tuple[str, str, str], np.ndarray]  # (input, loss, arm) -> (seeds, n)


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    folder = Path(run.out) / run.name
    torch.set_num_threads(run.runtime.threads)
    files, _ = write_centers(run, RunFolder(folder), data_roots(run))
    files = {code: path for code, path in files.items() if code != "CHEST"}
    for random in (False, True):
        say(f"features of the {'random' if random else 'pre-trained'} backbone")
        _table(run, folder, random)
    _train(run, overrides, folder, say)
    cohort = cohort_of(run, open_centers(files))
    risks = _risks(run, folder, cohort)
    say("federated Newton")
    risks |= _newton(run, folder, open_centers(files), cohort)
    say("resampling patients")
    return _page(run, cohort, risks, Path(run.data.root))


def cells(study: PhantomPrognosisStudy) -> Iterator[Cell]:
    """Every cell; a random backbone only where there is an image (the text side alone says nothing about images)."""
    for name, loss, fold, seed in product(study.inputs, study.losses, range(study.folds), study.seeds):
        yield Cell(name, loss, fold, seed)
        if name != "text":
            yield Cell(name, loss, fold, seed, random=True)


def study_step(run: Run, name: str, loss: str) -> Step:
    """The relapse step with adapters after the frozen encoders only."""
    study = run.study
    step = replace(run.steps["relapse"], name=f"{name}-{loss}", modalities=MODALITIES[name], rounds=study.rounds)
    sources = {"image": CT, "text": EHR}
    parts: dict[str, Any] = {s: MlpPart(input=s) for s, modality in sources.items() if modality in step.modalities}
    step.adapter = Adapter(parts | {"fusion": FusionPart()})
    step.task = replace(step.task, loss=loss)
    step.training = replace(
        step.training, batch=study.batch, learning_rate=study.learning_rate, augment=False, epochs=1
    )
    step.selection = Selection(metric="nll" if loss == "cox" else "loss")
    step.centers = step.evaluate_at = ["*"]
    return step


def cohort_of(run: Run, centers: Sequence[Center]) -> Cohort:
    """Outcomes and test folds of everyone who has an outcome."""
    rows = []
    for center in centers:
        for fold in range(run.study.folds):
            for case in _part(run, center, fold, "test"):
                rows.append((center.code, case.patient, fold, case.days, case.event))
    codes, patients, folds, days, events = zip(*sorted(rows), strict=True)
    return Cohort(list(patients), np.array(codes), np.array(folds), np.array(days, float), np.array(events, float))


def _with_outcome(case: Case) -> bool:
    return case.days is not None and CT in case.images


def _part(run: Run, center: Center, fold: int, name: str) -> list[Case]:
    """Patients with an outcome on one side of their center's split."""
    side = center.sides(_split(run, fold))
    return [case for case in center.cases if side[case.patient] == name and _with_outcome(case)]


def _split(run: Run, fold: int) -> Split:
    return replace(run.data.split, folds=run.study.folds, fold=fold)


# ------------------------------------------------------------------------------------------------------- training


def _train(run: Run, overrides: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    every = list(cells(run.study))
    waiting = [cell for cell in every if not cell.records(folder).exists()]
    say(f"{len(waiting)} of {len(every)} cells to train")

    def finished(number: int, cell: Cell) -> None:
        if number % 25 == 0 or number == len(waiting):
            say(f"  {number}/{len(waiting)}")

    work = partial(train_cell, tuple(overrides), folder)
    side_by_side(work, waiting, workers=worker_count(run.runtime), finished=finished)


def train_cell(overrides: tuple[str, ...], folder: Path, cell: Cell) -> None:
    """Train a cell's arms and keep every test patient's risk under each."""
    run, centers, table, base = _shared(overrides, folder, cell.random)
    run = replace(run, seed=cell.seed, data=replace(run.data, split=_split(run, cell.fold)))
    step = study_step(run, cell.input, cell.loss)
    torch.set_num_threads(run.runtime.threads)
    start, minimum = AdaptedModel(Encoded(table), step, seed=run.seed).state(), run.data.minimum_cell
    order = replace(baseline_order(run, step, base=base, state=start), backbone=_spec(run, cell.random))

    def served() -> list[FeatureCenter]:
        return [FeatureCenter(c.code, [c], table, of=_with_outcome, minimum=minimum) for c in centers]

    order.known = _label_sums(served(), order)
    found = {FEDERATED: _tested(served(), replace(order, state=federated(served(), order).state))}
    if not cell.random:
        everyone = FeatureCenter("ALL", centers, table, of=_with_outcome, minimum=minimum)
        found[CENTRALIZED] = _tested(served(), replace(order, state=train_pooled(everyone, order).state))
        found[LOCAL] = {}
        for center in served():
            if center.part(order, "test"):
                state = train_pooled(center, order).state if center.part(order, "train") else start
                found[LOCAL] |= _tested([center], replace(order, state=state))
    write_json(cell.records(folder), found)


def _label_sums(centers: Sequence[FeatureCenter], order: Order) -> dict[str, np.ndarray]:
    from common.tasks import merge_sums

    return merge_sums([center.label_sums(order) for center in centers])


def _tested(centers: Sequence[FeatureCenter], order: Order) -> dict[str, float]:
    """Patient -> risk of every test patient."""
    found: dict[str, float] = {}
    model, task = centers[0].model(order)
    for center in centers:
        cases = center.case_set(order, "test", model)
        observed: list[tuple[Observation, float]] = observe(order, model, task, cases) if len(cases) else []
        found |= {case.patient: float(o["risk"]) for case, (o, _) in zip(cases.cases, observed, strict=True)}
    return found


@lru_cache(maxsize=2)
def _shared(overrides: tuple[str, ...], folder: Path, random: bool) -> tuple[Run, list[Center], FeatureTable, str]:
    """What all cells of a backbone share, once per process."""
    run = compose_run(overrides)
    files = {path.stem: path for path in RunFolder(folder).centers.glob("*.yaml") if path.stem != "CHEST"}
    return run, open_centers(files), _table(run, folder, random), backbone_digest(_backbone(run, random))


def _table(run: Run, folder: Path, random: bool) -> FeatureTable:
    files = {path.stem: path for path in RunFolder(folder).centers.glob("*.yaml") if path.stem != "CHEST"}
    backbone, step = _backbone(run, random), study_step(run, "image+text", "deephit")
    base, state = backbone_digest(backbone), AdaptedModel(backbone, step, seed=run.seed).state()
    seen = replace(run, backbone=_spec(run, random))
    return feature_table(
        folder / "features" / f"{base[:16]}.safetensors", seen, step, open_centers(files), base=base, state=state
    )


def _spec(run: Run, random: bool) -> Any:
    return replace(run.backbone, random_seed=0) if random else run.backbone


def _backbone(run: Run, random: bool) -> Backbone:
    return _loaded(json.dumps(asdict(_spec(run, random)), sort_keys=True))


@lru_cache(maxsize=2)
def _loaded(spec: str) -> Backbone:
    from common.config.run import BackboneSpec

    return load_backbone(BackboneSpec(**json.loads(spec)))


def _risks(run: Run, folder: Path, cohort: Cohort) -> Risks:
    """Risks of every arm as (seeds, n), each patient's from the fold that tests them."""
    study = run.study
    found: Risks = {}
    row = {patient: i for i, patient in enumerate(cohort.patients)}
    for cell in cells(study):
        for arm, tested in json.loads(cell.records(folder).read_text()).items():
            key = (cell.input, cell.loss, RANDOM if cell.random else arm_of(arm))
            risks = found.setdefault(key, np.full((len(study.seeds), len(row)), np.nan))
            for patient, risk in tested.items():
                risks[study.seeds.index(cell.seed), row[patient]] = risk
    return found


# --------------------------------------------------------------------------------------------------- Newton, ceiling


def _newton(run: Run, folder: Path, centers: Sequence[Center], cohort: Cohort) -> Risks:
    """Federated Newton on the same frozen features, and on the record itself."""
    table, study = _table(run, folder, False), run.study
    cases = {case.patient: case for center in centers for case in center.cases if _with_outcome(case)}
    views = {(name, NEWTON): _plain_view(table, name) for name in study.inputs}
    views["text", RECORDS] = lambda patients: _record_view([cases[p] for p in patients])
    risks: Risks = {(name, "cox", arm): np.full((1, len(cohort.patients)), np.nan) for name, arm in views}
    for (name, arm), view in views.items():
        layout, values, flags = view(cohort.patients)
        rows = Rows(values, flags, np.stack([cohort.time, cohort.event], axis=1))
        for fold in range(study.folds):
            model = _fitted(run, layout, rows, cohort, centers, fold)
            tested = np.flatnonzero(cohort.fold == fold)
            risks[name, "cox", arm][0, tested] = model.output(rows.take(tested))[:, 0]
    return risks


def _plain_view(table: FeatureTable, name: str) -> Callable[[list[str]], tuple[Layout, np.ndarray, np.ndarray]]:
    sources = [{CT: "image", EHR: "text"}[m] for m in MODALITIES[name]]

    def view(patients: list[str]) -> tuple[Layout, np.ndarray, np.ndarray]:
        rows = [table.rows[p] for p in patients]
        values = torch.cat([table.pooled[s][rows] for s in sources], dim=1).double().numpy()
        plain = plain_rows(values, np.zeros((len(values), 1)))
        return Layout(tuple(f"feature {i}" for i in range(values.shape[1]))), plain.values, plain.flags

    return view


def _record_view(cases: Sequence[Case]) -> tuple[Layout, np.ndarray, np.ndarray]:
    layout = record_layout()
    return layout, *encode_records([case.record for case in cases], layout)


def _fitted(run: Run, layout: Layout, rows: Rows, cohort: Cohort, centers: Sequence[Center], fold: int) -> LinearModel:
    """Fitted on the training cases, center by center; the penalty by the validation cases' partial likelihood."""
    parts = {name: _by_center(run, cohort, centers, fold, name) for name in ("train", "validation")}
    train = [rows.take(chosen) for chosen in parts["train"] if len(chosen)]
    held_out = [rows.take(chosen) for chosen in parts["validation"] if len(chosen)]
    return fit_chosen(layout, train, held_out, run.study.penalties)


def _by_center(run: Run, cohort: Cohort, centers: Sequence[Center], fold: int, name: str) -> list[np.ndarray]:
    row = {patient: i for i, patient in enumerate(cohort.patients)}
    return [np.array([row[case.patient] for case in _part(run, center, fold, name)], int) for center in centers]


def _true_hazard(root: Path, cohort: Cohort) -> dict[str, np.ndarray]:
    """The generator's own log hazard and its components: what no model may see, and none can beat by much."""
    truth = pd.read_csv(root / "truth.csv").set_index("PatientID").loc[cohort.patients]
    return {"true hazard": truth["log_hazard"], "its image part": truth["image"], "its record part": truth["record"]}


# ------------------------------------------------------------------------------------------------------------- page


class Indices:
    """C-indices under the same resampled patients, drawn within centers."""

    def __init__(self, cohort: Cohort, *, draws: int):
        self.cohort = cohort
        self.weights = bootstrap_weights(cohort.centers.tolist(), draws=draws)

    def index(self, risk: np.ndarray, *, center: str | None = None, across: bool = False) -> Resampled:
        """Of risks (n,) or (seeds, n).

        Args:
            center: one center's patients only.
            across: form pairs across centers too, within a fold; needs every patient's time and risk in one place.
        """
        c = self.cohort
        chosen = np.ones(len(c.time), bool) if center is None else c.centers == center
        labels = c.fold.tolist() if across else c.groups
        groups = [label for label, keep in zip(labels, chosen, strict=True) if keep]
        return bootstrap_concordance(
            c.time[chosen], c.event[chosen], np.atleast_2d(risk)[:, chosen], groups=groups,
            weights=self.weights[:, chosen],
        )  # fmt: skip


def _page(run: Run, cohort: Cohort, risks: Risks, root: Path) -> Page:
    study = run.study
    resampled = Indices(cohort, draws=study.draws)
    found = {key: resampled.index(risk) for key, risk in risks.items()}
    ceiling = {name: resampled.index(np.asarray(risk)) for name, risk in _true_hazard(root, cohort).items()}
    page = Page("Prognosis on the phantom cohort", _lead(run, cohort))
    page.tables = [
        _scores(study, found),
        _differences(study, found),
        _yardsticks(study, found, ceiling),
        _centers(study, cohort, risks, resampled),
    ]
    page.pictures = [_picture(found, ceiling)]
    page.notes = _notes(run, risks, resampled)
    page.figures = {"|".join(key): [e.value, e.estimate().interval] for key, e in found.items()}
    page.figures |= {name: [e.value, e.estimate().interval] for name, e in ceiling.items()}
    return page


def _lead(run: Run, cohort: Cohort) -> str:
    study = run.study
    return (
        f"Synthetic data: {len(cohort.time)} phantom patients of {len(set(cohort.centers.tolist()))} centers, "
        f"{int(cohort.event.sum())} relapses (scale {run.data.scale}, seed {run.data.seed}). {study.folds}-fold, seeds "
        f"{study.seeds}; every patient is tested once per seed. C-index (Harrell, HECKTOR's ties) over pairs within a "
        f"center and fold, mean over seeds; 95 % percentile intervals from {study.draws} resamplings of patients "
        "within centers. They hold for these trained models, not for another draw of training patients."
    )


def _scores(study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled]) -> Table:
    rows: list[list[Any]] = []
    for name, loss in product(study.inputs, study.losses):
        arms = [found.get((name, loss, arm)) for arm in (*ARMS, RANDOM)]
        rows.append([name, loss, *(arm.estimate().text() if arm else None for arm in arms)])
    return Table("C-index", ["input", "loss", *map(label_of, ARMS), "federated, random backbone"], rows)


def _differences(study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled]) -> Table:
    rows: list[list[Any]] = []
    for name, loss in product(study.inputs, study.losses):
        mine = found[name, loss, FEDERATED]
        others = [found.get((name, loss, arm)) for arm in (CENTRALIZED, LOCAL, RANDOM)]
        others.append(found.get((name, "cox", NEWTON)))
        rows.append([name, loss, *(mine.minus(o).estimate().text(signed=True) if o else None for o in others)])
    note = f"Not inferior to centralized at the margin of {MARGIN} where the whole interval lies above −{MARGIN}."
    columns = ["input", "loss", *(f"− {label_of(a)}" for a in (CENTRALIZED, LOCAL, RANDOM)), "− federated Newton"]
    return Table("Federated minus the others, on the same patients", columns, rows, note)


def _yardsticks(
    study: PhantomPrognosisStudy, found: dict[tuple[str, str, str], Resampled], ceiling: dict[str, Resampled]
) -> Table:
    rows: list[list[Any]] = [[name, "the generator", estimate.estimate().text()] for name, estimate in ceiling.items()]
    rows += [[arm, name, e.estimate().text()] for (name, _, arm), e in found.items() if arm in (NEWTON, RECORDS)]
    note = (
        "Newton: stratified Cox fitted to the last digit as on pooled data; its penalty "
        f"({', '.join(f'{p:g}' for p in study.penalties)}) is chosen by the validation cases."
    )
    return Table("Yardsticks", ["what", "input", "C-index"], rows, note)


def _centers(study: PhantomPrognosisStudy, cohort: Cohort, risks: Risks, resampled: Indices) -> Table:
    """Federated against local-only at each center, for the fullest input and the first loss."""
    name, loss = study.inputs[-1], study.losses[0]
    rows: list[list[Any]] = []
    for center in sorted(set(cohort.centers.tolist())):
        mine, alone = (resampled.index(risks[name, loss, arm], center=center) for arm in (FEDERATED, LOCAL))
        gain = mine.minus(alone)
        harmed = gain.estimate().is_below_zero
        n = int((cohort.centers == center).sum())
        rows.append(
            [
                center,
                n,
                mine.estimate().text(),
                alone.estimate().text(),
                gain.estimate().text(signed=True),
                "harmed" if harmed else "",
            ]
        )
    columns = ["center", "patients", FEDERATED, label_of(LOCAL), "difference", ""]
    return Table(f"Center by center, {name}, {loss}", columns, rows, "Harmed: the whole interval lies below zero.")


def _notes(run: Run, risks: Risks, resampled: Indices) -> list[str]:
    study = run.study
    key = (study.inputs[-1], study.losses[0], FEDERATED)
    across = resampled.index(risks[key], across=True).estimate().text()
    return [
        f"Training: {study.rounds} rounds or passes, batches of {study.batch}, AdamW at {study.learning_rate:g}, no "
        "augmentation; the round or pass is chosen by validation cases (loss; Cox: partial likelihood). Nothing was "
        "searched. Centralized and local keep their optimiser and anneal its rate; the federation does neither.",
        "Encoders are frozen and without LoRA: these are UNICON's post-model adapters, not the within-model ones.",
        f"Over pairs across centers too, {key[0]} {key[1]} federated has {across}: possible only in a "
        "simulation, since it needs every patient's time, event and risk in one place.",
        "The random backbone is the same architecture frozen at random weights, with its text side random as well.",
    ]


def _picture(found: dict[tuple[str, str, str], Resampled], ceiling: dict[str, Resampled]) -> Picture:
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(dict.fromkeys((name, loss) for name, loss, arm in found if arm == FEDERATED))
    colors = {FEDERATED: "#0072B2", CENTRALIZED: "#D55E00", LOCAL: "#009E73", RANDOM: "#777777"}
    marks = {FEDERATED: "o", CENTRALIZED: "s", LOCAL: "^", RANDOM: "x"}
    figure, axes = plt.subplots(figsize=(7.2, 0.55 * len(rows) + 1.2), layout="constrained")
    for place, (name, loss) in enumerate(reversed(rows)):
        for shift, arm in enumerate(colors):
            resampled = found.get((name, loss, arm))
            estimate = Estimate(None) if resampled is None else resampled.estimate()
            if estimate.value is None or estimate.interval is None:
                continue
            y = place + 0.27 - 0.18 * shift
            axes.plot(estimate.interval, [y, y], color=colors[arm], linewidth=1.6)
            axes.plot([estimate.value], [y], marks[arm], color=colors[arm], label=label_of(arm) if place == 0 else None)
    for (what, ideal), style in zip(ceiling.items(), ("-", "--", ":"), strict=True):
        axes.axvline(ideal.value or 0.5, color="black", linewidth=1, linestyle=style, label=what)
    axes.axvline(0.5, color="#bbbbbb", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{name}, {loss}" for name, loss in reversed(rows)])
    axes.set_xlabel("C-index within centers, 95 % interval")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PIXELS, metadata={"Software": None})
    plt.close(figure)
    caption = "Synthetic data. Lines: Harrell's C of the true hazard and of its parts on the same pairs; grey: chance."
    return Picture("Every arm beside the ceiling", caption, png=buffer.getvalue())
