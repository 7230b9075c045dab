"""Whatever a step lists: killed in a round, the run ends with the same keys. One run carries every method that goes
with others; the rest name the test that kills them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.config.adapter import LoraPart
from common.config.methods import METHODS, methods_asked
from common.config.methods.continual import (
    DerppMethod,
    EwcMethod,
    FeaturesMethod,
    FewShotMethod,
    LwfMethod,
    MibMethod,
    OLoraMethod,
)
from common.config.methods.drift import ProximalMethod
from common.config.rules import broken_rules
from tests.helpers.killing import killed_in
from tests.helpers.small import adapters, federate, small_run

TOGETHER = [
    DerppMethod(at=["CHUM"], cases=1), LwfMethod(), FeaturesMethod(), MibMethod(), OLoraMethod(), EwcMethod(),
    ProximalMethod(0.1),
]  # fmt: skip
FIRST = [FewShotMethod(cases=2), EwcMethod()]
STATE, KEPT, STAGES = "test_kept_state.py", "test_keepsakes.py", "test_medseqft.py"
ELSEWHERE = {  # kind -> the test that kills a run of it, and its word for it
    "ditto": (STATE, '"personal"'),
    "feddyn": (STATE, '"feddyn"'),
    "inflora": (KEPT, "InfLoraMethod"),
    "local": (STATE, '"local"'),
    "medcoss": ("test_medcoss.py", "killed_in"),
    "medseqft": (STAGES, "test_killed"),
    "merge": ("test_merging.py", "MergeMethod"),
    "online_ewc": (KEPT, "EwcMethod"),  # what is stored and brought is EWC's; the server adds steps up otherwise
    "projection": (KEPT, "ProjectionMethod"),
    "refinement": (STAGES, "test_killed"),
    "rehearsal": ("test_methods_resume.py", "DerppMethod"),  # which has the memory of rehearsal
    "scaffold": (STATE, '"scaffold"'),
    "sequential": ("test_resume.py", "test_a_killed_run"),  # which is plain training
}
HERE = Path(__file__).resolve().parent


def a_run():
    """One task at CHUM, then at CHUP with CHUM rehearsing; the second step trains a LoRA part of its own."""
    run = small_run(centers=["CHUM", "CHUP"], steps=["tumour_ct", "tumour_ctpet"], rounds=2)
    first, second = run.steps.values()
    second.task, second.modalities, second.view = first.task, ["CT"], first.view
    first.training.moments, second.training = "averaged", replace(first.training, moments="center")
    second.modes, second.starts_from = [], None
    for step in (first, second):
        lora = {name: LoraPart(sites=["image_attention"], rank=2) for name in ("second", "within")}
        step.adapter.parts, step.writes = {"decoder": first.adapter.parts["decoder"], **lora}, "tumor"
        step.task.outlined = {"CHUP": ["GTVp"]}
    first.centers, first.train_parts, first.methods, first.rounds = ["CHUM"], ["decoder", "within"], FIRST, 1
    second.train_parts, second.methods = ["decoder", "second"], TOGETHER
    return run


def test_a_run_of_every_method_that_goes_with_others_killed_in_each_step_ends_with_the_same_keys(
    small_centers, tmp_path
):
    assert broken_rules(a_run()) == []
    whole = federate(a_run(), tmp_path / "whole", small_centers)
    for step, number in {"tumour_ct": 1, "tumour_ctpet": 2}.items():
        with killed_in(step, round=number):
            federate(a_run(), tmp_path / "run", small_centers)
    again = federate(a_run(), tmp_path / "run", small_centers)
    assert adapters(again) == adapters(whole)
    assert all(not event["failed"] for event in again.ledger.events("round_finished"))


@pytest.mark.parametrize("kind", METHODS.shipped)
def test_every_method_is_killed_somewhere(kind):
    if kind in {spec.kind for step in a_run().steps.values() for spec in methods_asked(step)}:
        return
    file, word = ELSEWHERE[kind]
    text = (HERE / file).read_text()
    assert "kill" in text.lower() and word in text
