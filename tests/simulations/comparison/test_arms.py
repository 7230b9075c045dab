"""Where a baseline's step starts: as the federation's does, also where it goes on with a lineage."""

import json

import torch
from safetensors.torch import load_file

from common.config.adapter import Adapter, UnetPart
from common.config.load import compose_run
from common.config.rules import broken_rules
from common.config.run import Run
from common.config.step import Step
from simulations.comparison.arms import StepWork, run_job, start_of
from simulations.comparison.beside import beside, federations
from simulations.comparison.comparing import Cell, Comparing, Job
from simulations.comparison.names import (
    FEDERATED,
    LEFT_OUT,
    LOCAL,
    UNET,
    UNET_CENTRALIZED,
    UNET_LOCAL,
    label_of,
)
from simulations.comparison.paired import patients_of
from simulations.comparison.training import of_cell
from tests.helpers.small import small_run

SEEDED = {"within/a": torch.zeros(2), "head/w": torch.zeros(3)}


def start(step, *before):
    steps = {one.name: one for one in (*before, step)}
    earlier = {
        one.name: {"within/a": torch.full((2,), float(n)), "head/w": torch.ones(4)} for n, one in enumerate(before, 1)
    }
    return start_of(StepWork(Run(steps=steps), step, SEEDED, "base", [], [], {}), earlier)["within/a"][0].item()


def test_a_step_starts_from_the_seed_from_the_step_it_names_or_from_its_lineages_last_writer():
    a, b, other = Step(name="a", writes="tumor"), Step(name="b", writes="tumor"), Step(name="other")
    assert start(Step(name="c"), a, b) == 0.0
    assert start(Step(name="c", starts_from="a"), a, b) == 1.0
    assert start(Step(name="c", writes="tumor"), a, b, other) == 2.0
    assert start(Step(name="c", writes="tumor", starts_from="a"), a, b) == 1.0


def test_the_u_net_stands_in_for_every_adapter_that_segments_and_other_steps_rest(tmp_path):
    overrides = ("curriculum=quickstart", "compare.arms=[unet]")
    comparing = Comparing(compose_run([*overrides, "with_controls=true"]), tmp_path, overrides)
    run = compose_run(comparing.arm_overrides(UNET, Cell(0, 1)))
    trained = {name: step for name, step in run.steps.items() if step.rounds > 0}
    assert {step.task.kind for step in trained.values()} == {"segmentation"} and len(trained) > 1
    assert all([part.kind for part in step.adapter.parts.values()] == ["unet"] for step in trained.values())
    assert broken_rules(run) == []
    plain = compose_run(comparing.arm_overrides(FEDERATED, Cell(0, 1)))
    assert not any(part.kind == "unet" for step in plain.steps.values() for part in step.adapter.parts.values())
    assert federations(run.compare) == [FEDERATED, UNET, "random backbone"]


def test_a_u_net_is_trained_federated_in_one_place_and_alone(federated_cell):
    run = small_run(centers=["CHUM", "MDA"], steps=["tumour_ctpet"], rounds=1)
    step = run.steps["tumour_ctpet"]
    step.adapter, step.starts_from = Adapter({"unet": UnetPart(widths=[4, 6])}), None
    run.compare.arms, run.compare.random_backbone = ["unet"], False
    comparing, cell = federated_cell(run)
    for job in (
        Job(FEDERATED, cell),
        Job(UNET_CENTRALIZED, cell),
        Job(UNET_LOCAL, cell, "CHUM"),
        Job(LOCAL, cell, "MDA"),
    ):
        run_job(comparing, job)
    tested = [p.patient for p in patients_of(comparing, FEDERATED, step.name)]
    assert [p.patient for p in patients_of(comparing, UNET_CENTRALIZED, step.name)] == tested
    assert {p.center for p in patients_of(comparing, UNET_LOCAL, step.name)} == {"CHUM"}
    assert {p.center for p in patients_of(comparing, LOCAL, step.name)} == {"MDA"}
    assert label_of(UNET_LOCAL) in map(label_of, beside(run.compare))


def test_a_center_that_is_left_out_is_tested_by_what_the_others_trained(federated_cell):
    run = small_run(centers=["CHUM", "CHUP", "MDA"], steps=["tumour_ct"], rounds=1)
    run.compare.arms, run.compare.random_backbone = ["left_out"], False
    comparing, cell = federated_cell(run)
    for center in ("CHUM", "MDA"):
        run_job(comparing, Job(LEFT_OUT, cell, center))
    run_job(comparing, Job("centralized", cell))
    assert {p.center for p in patients_of(comparing, LEFT_OUT, "tumour_ct")} == {"CHUM", "MDA"}
    seen = {
        row.get("center", row["arm"]): row["cases"]
        for row in of_cell(comparing, cell)
        if row["arm"] in (LEFT_OUT, "centralized")
    }
    folder = comparing.records(Job(LEFT_OUT, cell, "CHUM"))
    alone = json.loads((folder / "tumour_ct.train.json").read_text())
    assert alone["cases"] == seen["CHUM"] < seen["centralized"] and seen["MDA"] < seen["centralized"]
    states = [load_file(comparing.records(job) / "tumour_ct.safetensors") for job in (
        Job(LEFT_OUT, cell, "CHUM"), Job(LEFT_OUT, cell, "MDA"))]  # fmt: skip
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
