"""study=pemma_fusion: PEMMA (LoRA, DoRA) beside early and late fusion, CT alone and PET alone; and what stages forget.

Late fusion is no model of its own: the mean of the probabilities of the CT-only and the PET-only one, made here because
only a simulation may see both answers for a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from client.training.observation import compared, is_scored_where_drawn
from client.training.prediction import answered
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.run import Run
from common.data.batch import CT, PET
from common.model.adapted import AdaptedModel
from common.store.bank import AdapterBank
from common.store.ledger import Ledger
from common.tasks.segmentation import Segmentation
from simulations.comparison.arms import write_records
from simulations.comparison.baselines import baseline_order
from simulations.comparison.comparing import Cell, Comparing, Job
from simulations.comparison.names import FEDERATED
from simulations.comparison.paired import Patient, patients_of
from simulations.comparison.patients import Observed, open_centers
from simulations.studies.cells import (
    arms_left_out,
    bytes_up,
    data_named,
    difference,
    plain_score,
    prepared,
    repeats,
    run_cells,
    score,
)
from simulations.studies.options.pemma_fusion import KINDS, MODES
from simulations.studies.page import Page, Table, Value

LATE = "late"
ARRIVING = {"ct": "CT", "pet": "PET", "ctpet": "CT + PET"}
METHODS = {
    "ct": "CT model before PET (four centers)",
    "ct_only": "CT only, everything trained",
    "pet_only": "PET only, everything trained",
    LATE: "late fusion of the two",
    "early": "early fusion, everything trained",
    "mda_lora": "PEMMA, LoRA",
    "mda_dora": "PEMMA, DoRA",
}
SHOWS = {"ct": ("CT",), "ct_only": ("CT",), "pet_only": ("PET",), LATE: ("CT+PET",)}
RELAPSE = {"relapse_ct": "CT", "relapse_pet": "+ PET", "relapse_ehr": "+ PET + EHR"}
METRIC = "dice"


def run(run: Run, overrides: Sequence[str], say: Callable[[str], None]) -> Page:
    """Run or continue the study."""
    comparing = prepared(run, overrides)
    run_cells(comparing, say, extra=record_late)
    say("resampling patients")
    return Page(
        title="PEMMA: ways to fuse CT and PET, and what its stages forget",
        lead=f"Mean Dice over structures and patients. Ours: {data_named(run)}, {repeats(run)}. CT at four centers, "
        "then CT + PET at MDA, then HGJ, then HMR; every stage scored from CT, from PET and from both at every center.",
        tables=[
            _fusion(comparing),
            *(_stages(comparing, kind) for kind in KINDS),
            _forgetting(comparing),
            _untouched(comparing),
            _relapse(comparing),
        ],
        notes=_notes(run),
    )


# ----------------------------------------------------------------------------------------------------- late fusion


def record_late(comparing: Comparing, cell: Cell, arm: str) -> None:
    """Record the mean of the CT-only and the PET-only model's probabilities for every test patient with both."""
    records = comparing.records(Job(arm, cell))
    if (records / f"{LATE}@CT+PET.json").exists():
        return
    run = compose_run(comparing.arm_overrides(arm, cell))
    folder = comparing.arm_folder(arm, cell)
    files = folder.center_files()
    [event] = Ledger(folder.ledger).events("step_finished", step="ct_only")[:1]
    base, bank = backbone_digest(load_backbone(run.backbone)), AdapterBank(folder.bank)
    steps = [run.steps["ct_only"], run.steps["pet_only"]]
    asked = [baseline_order(run, step, base=base, state=bank.get(bank.head(step.name))) for step in steps]
    orders = [replace(order, subset="test") for order in asked]
    found: list[Observed] = []
    for center in open_centers(files, event["evaluated_at"]):
        models = [center.model(order) for order in orders]
        held = [center.case_set(order, "test", model) for order, (model, _) in zip(orders, models, strict=True)]
        by_patient = [{case.patient: i for i, case in enumerate(cases.cases)} for cases in held]
        task = models[0][1]
        for patient in sorted(by_patient[0].keys() & by_patient[1].keys()):
            batches = [cases.collate([rows[patient]]) for cases, rows in zip(held, by_patient, strict=True)]
            batches = [batch.to(center.config.device) for batch in batches]
            if not (bool(batches[0].present[CT].all()) and bool(batches[1].present[PET].all())):
                continue
            with torch.no_grad():
                answers = [
                    answered(model, batch, order.step).softmax(dim=1)
                    for (model, _), batch, order in zip(models, batches, orders, strict=True)
                ]
            mean, place = torch.stack(answers).mean(dim=0), held[0].own_grid(by_patient[0][patient])
            [observation] = task.observe(mean, batches[0])
            if place is not None and is_scored_where_drawn(orders[0]) and isinstance(task, Segmentation):
                observation = compared(task, mean[0], place, mask=batches[0].target["mask"][0])
            found.append(Observed(center.code, patient, observation))
    write_records(records, LATE, found, mode="CT+PET")


# ---------------------------------------------------------------------------------------------------------- tables


def _fusion(comparing: Comparing) -> Table:
    rows: list[list[Value]] = []
    backbone = load_backbone(comparing.run.backbone)
    others = [arm for arm in comparing.run.study.arms if arm != FEDERATED]
    for name, said in METHODS.items():
        step = comparing.run.steps["ct_only" if name == LATE else name]
        late = replace(step, name=LATE)
        shown = SHOWS.get(name, MODES)
        scored = [
            score(comparing, FEDERATED, late if name == LATE else step, METRIC, mode=_mode(name, mode)).text()
            if mode in shown
            else None
            for mode in MODES
        ]
        weights = [comparing.run.steps[n] for n in (("ct_only", "pet_only") if name == LATE else (name,))]
        trained = sum(
            sum(p.numel() for p in AdaptedModel(backbone, s, seed=comparing.run.seed).trainable_parameters())
            for s in weights
        )
        up = [b for b in (bytes_up(comparing, s.name) for s in weights) if b is not None]
        controls = [
            plain_score(comparing, arm, late if name == LATE else step, METRIC, mode=_mode(name, shown[-1]))
            for arm in others
        ]
        rows.append([said, *scored, trained, round(sum(up) / 1e3) if up else None, *controls])
    columns = ["method", *(f"Dice from {mode} [95 %]" for mode in MODES), "trained parameters", "kB up"]
    return Table(
        "CT and PET, after the stage at MDA",
        columns + [f"fullest mode, {arm}" for arm in others],
        rows,
        "All but the first start from the CT model and train at MDA as many rounds. kB up: one reply, measured; late "
        "fusion trains and sends two models.",
    )


def _mode(name: str, mode: str) -> str:
    """Steps with one mode have it unnamed."""
    return "" if name in ("ct", "ct_only", "pet_only") else mode


def _stages(comparing: Comparing, kind: str) -> Table:
    """Every stage's Dice in every mode and the change against the stage that it starts from."""
    rows: list[list[Value]] = []
    steps = comparing.run.steps
    for name in (f"mda_{kind}", *(f"{c}_{m}_{kind}" for c in ("hgj", "hmr") for m in ARRIVING)):
        step = steps[name]
        before = steps[str(step.starts_from)]
        cells: list[Value] = []
        for mode in MODES:
            cells.append(plain_score(comparing, FEDERATED, step, METRIC, mode=mode))
            known = before.name != "ct" or mode == "CT"
            found = difference(
                comparing, (FEDERATED, step, mode), (FEDERATED, before, mode if before.name != "ct" else ""), METRIC
            )
            cells.append(found.text(signed=True) if known else None)
        rows.append([name.removesuffix(f"_{kind}"), before.name.removesuffix(f"_{kind}"), *cells])
    columns = ["stage", "starts from"]
    for mode in MODES:
        columns += [f"{mode}", "change [95 %]"]
    return Table(
        f"PEMMA's stages, {KINDS[kind]}: Dice over all centers' test patients, and the change that the stage made",
        columns,
        rows,
        "hgj_pet: only PET arrives at HGJ and only PET's parts train. A negative change is forgetting.",
    )


def _forgetting(comparing: Comparing) -> Table:
    """Along mda -> hgj_ctpet -> hmr_ctpet: the best earlier value minus the last, per center and mode."""
    rows: list[list[Value]] = []
    for kind, said in KINDS.items():
        chain = [comparing.run.steps[f"{name}_{kind}"] for name in ("mda", "hgj_ctpet", "hmr_ctpet")]
        centers = sorted({p.center for p in patients_of(comparing, FEDERATED, chain[-1].name, mode="CT+PET")})
        for center in [*centers, None]:
            cells: list[Value] = []
            for mode in MODES:
                values = [plain_score(comparing, FEDERATED, s, METRIC, mode=mode, center=center) for s in chain]
                known = [v for v in values if v is not None]
                cells.append(max(known[:-1]) - known[-1] if len(known) == len(chain) else None)
            n = len([p for p in patients_of(comparing, FEDERATED, chain[-1].name) if center in (None, p.center)])
            rows.append([said, center or "all", n, *cells])
    return Table(
        "Forgetting: the best earlier Dice minus the last, along mda, hgj_ctpet, hmr_ctpet",
        ["PEMMA", "center", "patients", *MODES],
        rows,
        "Each stage is kept in the bank, so nothing is lost; this is what a center would lose by using the newest one.",
    )


def _untouched(comparing: Comparing) -> Table:
    """How many records a single-modality stage changed, by mode."""
    rows: list[list[Value]] = []
    for kind, said in KINDS.items():
        for center in ("hgj", "hmr"):
            for arriving in ("ct", "pet"):
                step = comparing.run.steps[f"{center}_{arriving}_{kind}"]
                start = str(step.starts_from)
                cells: list[Value] = []
                for mode in MODES:
                    after, before = (patients_of(comparing, FEDERATED, n, mode=mode) for n in (step.name, start))
                    changed = sum(not _same(a, b) for a, b in zip(after, before, strict=True))
                    cells.append(f"{changed} of {len(after)}")
                rows.append([said, center.upper(), ARRIVING[arriving], *cells])
    return Table(
        "Patients whose segmented volumes a single-modality stage changed",
        ["PEMMA", "stage at", "arriving", *(f"from {mode}" for mode in MODES)],
        rows,
        "Compared by volume, to the last bit; the outputs themselves are compared in tests/e2e/test_pemma.py.",
    )


def _same(a: Patient, b: Patient) -> bool:
    return a.patient == b.patient and all(
        np.array_equal(x[name], y[name]) for x, y in zip(a.records, b.records, strict=True) for name in x
    )


def _relapse(comparing: Comparing) -> Table:
    rows: list[list[Value]] = []
    first = comparing.run.steps["relapse_ct"]
    others = [arm for arm in comparing.run.study.arms if arm != FEDERATED]
    for name, said in RELAPSE.items():
        step = comparing.run.steps[name]
        ours = score(comparing, FEDERATED, step, "c_index")
        change = difference(comparing, (FEDERATED, step, ""), (FEDERATED, first, ""), "c_index")
        row: list[Value] = [said, ours.text(), None if name == first.name else change.text(signed=True), ours.n]
        rows.append([*row, *(plain_score(comparing, arm, step, "c_index") for arm in others)])
    return Table(
        "Prognosis extension: C-index within centers, all centers train",
        ["inputs", "C-index [95 %]", "against CT [95 %]", "patients", *others],
        rows,
        "PEMMA's extension claims +10 % with PET and +23 % with PET and EHR over CT.",
    )


def _notes(run: Run) -> list[str]:
    return [
        "Intervals: percentile bootstrap over test patients within centers (small ones together), "
        f"{run.compare.draws} draws; they do not cover the choice of training patients.",
        "Each stage is a lineage of its own that starts from the one before it: the bank keeps them all and earlier "
        "answers stay bit-identical. The change columns say what moving on to the newer stage would do.",
        "MDA, HGJ and HMR each train alone in their stage, so federated, local and centralized training differ there "
        "by the optimiser's schedule only; those arms are left out.",
        "Differences from PEMMA: the frozen encoder is a foundation model and only the decoder is trained in the CT "
        "stage (PEMMA trains its whole UNETR); crops follow a label-free rule (PEMMA's were centered on the tumor, for "
        "validation too); which modality is there is an argument per patient; group norm in place of batch norm; "
        "single-modality stages freeze LoRA, the projection and the other modality's parts.",
        "PEMMA's table values could not be obtained; its claim is early fusion's quality at 8 % of the parameters.",
        *arms_left_out(run),
    ]
