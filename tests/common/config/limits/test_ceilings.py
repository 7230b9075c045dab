"""A step above a ceiling is refused by the server's plan and on site by the same sentence."""

import copy
from dataclasses import replace

import pytest

from common.config.adapter import DecoderPart, FullPart, LoraPart
from common.config.load import compose_run
from common.config.rules import broken_by_step, broken_rules
from common.config.run import BackboneSpec
from common.config.task import ClassificationTask

NAN = float("nan")
RUN = compose_run(["curriculum=smoke"])


def with_part(step, part):
    step.adapter.parts["more"] = part


CHANGES = {
    "training.epochs is 1e+09; it can be 1 to 10000.": lambda s: setattr(s.training, "epochs", 10**9),
    "training.batch is 1e+09; it can be 1 to 4096.": lambda s: setattr(s.training, "batch", 10**9),
    "training.batch is -1; it can be 1 to 4096.": lambda s: setattr(s.training, "batch", -1),
    "training.batch is 0; it can be 1 to 4096.": lambda s: setattr(s.training, "batch", 0),
    "training.learning_rate is 1e+30; it can be 0 to 1000.": lambda s: setattr(s.training, "learning_rate", 1e30),
    "training.learning_rate is nan, which is no finite": lambda s: setattr(s.training, "learning_rate", NAN),
    "view.spacing_mm is nan, which is no finite": lambda s: setattr(s.view, "spacing_mm", [NAN, 1.0, 1.0]),
    "view.spacing_mm is 0.001": lambda s: setattr(s.view, "spacing_mm", [0.001, 1.0, 1.0]),
    "view.size [2000, 2000, 2000] has more than": lambda s: setattr(s.view, "size", [2000] * 3),
    "view.window is 0; it can be 1 to 4096.": lambda s: setattr(s.view, "window", [0, 24, 24]),
    "view.ct_hu has 1 entries; it must have 2.": lambda s: setattr(s.view, "ct_hu", [0.0]),
    "adapter.parts.more.rank is 1e+06": lambda s: with_part(s, LoraPart(rank=10**6)),
    "adapter.parts.more.features is 1e+06": lambda s: with_part(s, DecoderPart(features=10**6)),
    "adapter.parts.more.tensors has 65 entries": lambda s: with_part(s, FullPart(tensors=["*"] * 65)),
    "adapter.parts.more.tensors has 1001 letters": lambda s: with_part(s, FullPart(tensors=["*" * 1001])),
    "task.structures has 100000 entries": lambda s: setattr(s.task, "structures", ["a"] * 100_000),
    "task.classes has 1000000 entries": lambda s: setattr(s, "task", ClassificationTask(classes=["a"] * 10**6)),
    "task.bins is 1e+08": lambda s: setattr(s, "task", copy.deepcopy(PROGNOSIS)),
    "name has 5000000 letters": lambda s: setattr(s, "name", "a" * 5_000_000),
    "rounds is 1e+07": lambda s: setattr(s, "rounds", 10**7),
    "federation.deadline_s is 1e+12": lambda s: setattr(s.federation, "deadline_s", 1e12),
}
PROGNOSIS = replace(compose_run(["curriculum=quickstart"]).steps["relapse"].task, bins=10**8)


@pytest.mark.parametrize("said", CHANGES)
def test_server_and_hospital_refuse_the_same(said):
    run = copy.deepcopy(RUN)
    step = run.steps["tumour_ct"]
    CHANGES[said](step)
    on_site = broken_by_step(step, BackboneSpec(kind="tiny"))
    assert any(said in problem for problem in on_site), on_site
    assert max(map(len, on_site)) < 500
    assert (
        set(on_site) <= {problem for problem in broken_rules(run) if problem.startswith("Step")} or len(step.name) > 100
    )


@pytest.mark.parametrize("curriculum", ["smoke", "quickstart", "pemma", "exact", "unicon", "diagnosis"])
def test_shipped_steps_pass_on_site(curriculum):
    run = compose_run([f"curriculum={curriculum}"])
    assert [p for step in run.steps.values() for p in broken_by_step(step, run.backbone)] == []


def test_a_plugins_options_are_finite_too():
    step = copy.deepcopy(RUN.steps["tumour_ct"])
    step.adapter.parts["own"] = replace(LoraPart(), dropout=NAN)
    assert any("adapter.parts.own.dropout is nan" in p for p in broken_by_step(step, RUN.backbone))
