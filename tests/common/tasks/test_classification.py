"""Classification: unknown labels teach nothing, and histograms of centers add up to one AUROC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.config.task import ClassificationTask, PrognosisTask
from common.data.batch import Batch
from common.errors import ConfigError, UnknownName
from common.tasks import build_task, merge_sums, withheld_fields


@pytest.fixture
def task():
    return build_task(ClassificationTask(classes=["Emphysema", "Lung nodule"]))


def batch_of(labels):
    return Batch({}, {}, {"labels": torch.tensor(labels, dtype=torch.float32)})


def test_loss_is_the_mean_over_known_labels(task):
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.5]], requires_grad=True)
    value = task.loss(logits, batch_of([[1, -1], [0, 1]]))
    known = F.binary_cross_entropy_with_logits(logits.detach()[[0, 1, 1], [0, 0, 1]], torch.tensor([1.0, 0, 1]))
    assert value.item() == pytest.approx(known.item(), abs=1e-6)
    value.backward()
    assert logits.grad[0, 1] == 0


def test_without_a_known_label_the_loss_is_zero_with_a_gradient(task):
    logits = torch.randn(2, 2, requires_grad=True)
    value = task.loss(logits, batch_of([[-1, -1], [-1, -1]]))
    value.backward()
    assert value.item() == 0 and logits.grad.abs().sum() == 0


def test_auroc_per_class_and_merged(task):
    scores = torch.tensor([[2.0, 0.1], [1.0, 0.2], [-1.0, 0.3], [-2.0, 0.4]])
    observations = task.observe(scores, batch_of([[1, 1], [0, 1], [1, 1], [0, -1]]))
    sums = merge_sums([task.sums(observations[:2]), task.sums(observations[2:])])
    metrics = task.metrics(sums)
    assert (metrics["auroc"], metrics["auroc_Emphysema"], metrics["auroc_Lung nodule"]) == (0.75, 0.75, None)
    assert metrics["auprc_Emphysema"] == pytest.approx((1 + 2 / 3) / 2) and metrics["auprc_Lung nodule"] is None
    # Emphysema: 2 of 3 hits, 1 of 2 rejections at a logit of 0; the nodule is called in all of its three cases
    assert metrics["balanced_accuracy"] == pytest.approx(((1 / 2 + 1 / 2) / 2 + 1) / 2)
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    assert sums["positives"].sum() == 5 and sums["negatives"].sum() == 2 and sums["cases"] == 4


def test_no_cases_make_zero_sums(task):
    sums = task.sums([])
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    assert set(task.metrics(sums).values()) == {None}


def test_zero_shot_has_no_head(task):
    assert task.head(8)(torch.zeros(1, 8)).shape == (1, 2)
    assert build_task(ClassificationTask(classes=["x"], zero_shot=True)).head(8) is None


def test_an_unknown_task_is_refused_with_the_options():
    with pytest.raises(
        UnknownName, match=r"Unknown task 'None'. Known: classification, grounding, masked, prognosis, segmentation"
    ):
        build_task(None)


# ------------------------------------------------------------------------------------- binary, exclusive, ordered

FORMS = {
    "binary": ClassificationTask(classes=["hpv"], form="binary", target="hpv"),
    "multi_class": ClassificationTask(classes=["T1", "T2", "T3"], form="multi_class", target="t_stage"),
    "ordinal": ClassificationTask(classes=["T1", "T2", "T3"], form="ordinal", target="t_stage"),
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_learns_scores_and_declares(form):
    task = build_task(FORMS[form])
    torch.manual_seed(0)
    head, x = task.head(4), torch.randn(40, 4)
    labels = (x[:, :1] > 0).long() + (0 if form == "binary" else (x[:, :1] > 0.8).long())
    labels[0] = -1
    batch, optimizer = batch_of(labels.tolist()), torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(120):
        optimizer.zero_grad()
        task.loss(head(x), batch).backward()
        optimizer.step()
    observed = task.observe(head(x), batch)
    sums = merge_sums([task.sums(observed[:13]), task.sums(observed[13:])])
    assert task.metrics(sums)["balanced_accuracy"] > 0.9 and task.metrics(sums)["auroc"] > 0.95
    yes = (labels == 1).sum() if form == "binary" else 39
    assert sums["confusion"].sum() == 39 and sums["positives"].sum() == yes
    assert {name: np.shape(value) for name, value in sums.items()} == task.sum_shapes
    curves = task.curve_sums(observed, 0.0)
    assert {name: np.shape(value) for name, value in curves.items()} == task.curve_shapes
    assert curves["labeled"] == 39 and task.metrics(sums | curves)["nll"] < 0.3
    counts = task.label_sums(batch.target)["class_counts"]
    assert counts.sum() == 39 and counts.shape == task.label_shapes["class_counts"]
    assert task.probabilities(head(x)).shape == (40, len(task.classes))


def test_stages_are_a_distribution_with_rising_thresholds():
    task = build_task(FORMS["ordinal"])
    output = task.head(4)(torch.randn(6, 4))
    assert (output.diff(dim=1) < 0).all()
    assert task.probabilities(output).sum(dim=1).tolist() == pytest.approx([1.0] * 6)
    assert task.predicted(torch.tensor([[1.0, -1.0], [2.0, 1.0], [-1.0, -2.0]])).flatten().tolist() == [1, 2, 0]


def test_rare_classes_weigh_more_by_the_counts_of_all_centers():
    spec = ClassificationTask(classes=["hpv"], form="binary", target="hpv", imbalance="counts")
    centers = [{"labels": torch.tensor([[1.0], [1], [1], [-1]])}, {"labels": torch.tensor([[0.0], [1], [1], [1]])}]
    known = merge_sums([build_task(spec).label_sums(target) for target in centers])
    assert known["class_counts"].tolist() == [[1, 6]]
    logits = torch.zeros(2, 1)
    weighed = build_task(spec, known).loss(logits, batch_of([[0], [1]])).item()
    assert weighed == pytest.approx(np.log(2) * (7 / 2 + 7 / 12) / 2, abs=1e-6)
    assert build_task(spec).loss(logits, batch_of([[0], [1]])).item() == pytest.approx(np.log(2), abs=1e-6)


def test_a_class_that_no_center_has_weighs_one():
    spec = ClassificationTask(classes=["T1", "T2"], form="multi_class", target="t_stage", imbalance="counts")
    task = build_task(spec, {"class_counts": np.array([4.0, 0.0])})
    assert torch.isfinite(task.loss(torch.zeros(2, 2), batch_of([[0], [1]])))


def test_configured_weights_multiply_the_yes_of_a_binary_class():
    spec = ClassificationTask(classes=["hpv"], form="binary", target="hpv", imbalance="weights", weights=[3.0])
    assert build_task(spec).loss(torch.zeros(2, 1), batch_of([[0], [1]])).item() == pytest.approx(2 * np.log(2))
    with pytest.raises(ConfigError, match="has 0 entries for 1 classes"):
        build_task(ClassificationTask(classes=["hpv"], form="binary", imbalance="weights"))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_temperature_from_federated_sums_calibrates_and_keeps_the_ranks(form):
    generator = torch.Generator().manual_seed(1)
    task = build_task(FORMS[form])
    honest = torch.randn(3000, task.outputs, generator=generator)
    honest = honest.sort(dim=1, descending=True).values if form == "ordinal" else honest
    shares = task.probabilities(honest)
    draw = torch.bernoulli if form == "binary" else lambda shares, generator: shares.multinomial(1, generator=generator)
    labels = draw(shares, generator=generator)
    observed = task.observe(4 * honest, batch_of(labels.tolist()))
    sums = merge_sums([task.sums(observed[:700]), task.sums(observed[700:])])
    known = task.calibrate(sums)
    assert float(known["temperature"]) == pytest.approx(4, rel=0.15)
    sharp, fitted = (build_task(FORMS[form], k) for k in (None, known))
    before, after = (sums | t.curve_sums(observed, 0.0) for t in (sharp, fitted))
    assert fitted.metrics(after)["nll"] < sharp.metrics(before)["nll"] - 0.1
    assert fitted.metrics(after)["ece"] < 0.06 < sharp.metrics(before)["ece"]
    assert fitted.metrics(after)["auroc"] == sharp.metrics(before)["auroc"]


def test_a_target_and_its_proxies_are_withheld():
    assert withheld_fields(FORMS["binary"]) >= {"hpv", "chemotherapy", "treatment"}
    assert withheld_fields(FORMS["ordinal"]) >= {"t_stage", "n_stage", "m_stage", "surgery"}
    assert withheld_fields(PrognosisTask()) == withheld_fields(ClassificationTask()) == frozenset()


def test_an_unknown_form_is_refused_with_the_options():
    with pytest.raises(UnknownName, match=r"'multiclass'. Known: binary, multi_class, multi_label, ordinal"):
        build_task(ClassificationTask(form="multiclass"))
