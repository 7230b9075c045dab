"""A hospital with a minimum of 5 answers every action of every step, and nothing that it says is of 1 to 4 patients."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from client.center.center import Center
from client.center.models import initial_state
from client.privacy.record import read_record
from common.backbones import backbone_digest, load_backbone
from common.config.load import compose_run
from common.config.run import Split
from common.errors import PolicyRefusal
from common.exact.columns import COUNT, SUM, scaling_from
from common.exact.objectives import HESSIAN
from common.exact.ridge import GRAM
from common.exact.step import BETA, MEAN, SCALE
from common.protocol.messages import Order
from common.tasks.cells import few
from common.tasks.cuts import EVENTS, GRID
from tests.helpers.small import VIEW, forget, write_centers, write_cohort

MINIMUM = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Thirty patients at CHUP; tobacco is recorded for one, the weight is missing of two."""
    root = write_cohort(tmp_path_factory.mktemp("told"), {"CHUP": 30})
    table = root / "hecktor2022_clinical_info_training.csv"
    lines = table.read_text().splitlines()
    lines[1] = lines[1].replace(",80,,0,", ",94,1,0,")
    lines[2:4] = [line.replace(",80,,0,", ",,,0,") for line in lines[2:4]]
    ages = [line.split(",") for line in lines[1:]]  # of the small cohort, which counts them up without end
    lines[1:] = [",".join([*row[:5], str(40 + place), *row[6:]]) for place, row in enumerate(ages)]
    table.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def center(root, tmp_path):
    forget()
    file = write_centers(tmp_path, root, ["CHUP"], minimum_cell=MINIMUM, minimum_cases=MINIMUM)["CHUP"]
    return Center.open(file)


def order_of(name, center, curriculum="exact", **changes):
    run = compose_run([f"curriculum={curriculum}", "backbone=tiny", "name=told"])
    step = (run.steps | run.controls)[name]
    step.view = VIEW
    base = backbone_digest(load_backbone(run.backbone))
    split = Split(folds=3, validation=0.0)
    order = Order(step, 1, 0, run.backbone, base, split, run="ab" * 32)
    order = replace(order, state=initial_state(center.config, order))
    return replace(order, **changes)


def test_ages_do_not_follow_from_two_answers(center):
    """DEFECTS A1: sums over all but one, for each one, gave every age."""
    order, answers = order_of("relapse_exact", center), []
    for fold in range(10):
        try:
            answers.append(center.sums(replace(order, split=Split(folds=10, fold=fold, validation=0.0))))
        except PolicyRefusal as refusal:
            assert refusal.code.startswith("declined.")
    sets = sorted({answer.patients for answer in read_record(center.vault).answered}, key=sorted)
    assert answers and len(sets) >= 2
    assert all(len(a ^ b) >= MINIMUM for a, b in itertools.combinations(sets, 2))
    rows = np.array([[patient in one for patient in sorted(frozenset().union(*sets))] for one in sets], float)
    for place in range(rows.shape[1]):  # no weights of all answers leave one patient
        kept = np.delete(rows, place, axis=1)
        assert np.linalg.matrix_rank(kept) == np.linalg.matrix_rank(rows)


def test_a_rare_flag_is_in_no_gram_and_no_newton_sum(center):
    """DEFECTS A2: one patient had tobacco recorded, and the Gram row of that flag was the patient's whole row."""
    gram = center.sums(order_of("hpv_exact", center))
    assert gram.is_usable and gram.counts["adjusted"] == MINIMUM, "two or three were changed, told as the minimum"
    cells = gram.sums[GRAM][0]
    flags = cells[0, -(cells.shape[0] // 2) :]
    assert not few(flags, MINIMUM).any() and not few(cells[0, 0] - flags, MINIMUM).any()

    order = order_of("relapse_exact", center)
    moments = center.sums(order)
    assert not few(moments.sums[COUNT], MINIMUM).any() and moments.counts["cases"] >= MINIMUM
    scaling = scaling_from(moments.sums)
    assert (scaling.scale[moments.sums[COUNT] == 0] == 1).all() and (
        moments.sums[SUM][moments.sums[COUNT] == 0] == 0
    ).all()
    columns = order.state["linear/weight"].shape[1]
    known = {MEAN: scaling.mean, SCALE: scaling.scale, BETA: np.zeros((1, columns))}
    first = center.sums(replace(order, round=1, known=known))
    hidden = np.flatnonzero(moments.sums[COUNT] == 0)
    assert len(hidden) and (first.sums[HESSIAN][0][hidden] == 0).all(), "hidden in round 0, it enters no later sum"


def test_a_search_off_its_path_is_refused_with_a_code(center):
    """DEFECTS A3: any point was answered, before the moments and at infinity."""
    order = order_of("relapse_exact", center)
    columns, values = order.state["linear/weight"].shape[1], len(order.state["linear/mean"])
    start = {MEAN: np.zeros(values), SCALE: np.ones(values), BETA: np.zeros((1, columns))}
    seen = {}
    for name, asked, number in (
        ("early", {}, 1),
        ("steep", {BETA: np.full((1, columns), 760.0)}, 1),
        ("no", {MEAN: np.ones(1)}, 1),
    ):
        with pytest.raises(PolicyRefusal) as refusal:
            center.sums(replace(order, round=number, known=start | asked))
        seen[name] = refusal.value.code
    assert seen == {"early": "declined.path", "steep": "declined.point", "no": "declined.point"}


def test_the_very_same_question_is_always_answered(center):
    order = order_of("relapse_exact", center)
    first, again = center.sums(order), center.sums(order)
    assert all(np.array_equal(first.sums[name], again.sums[name]) for name in first.sums)


def test_event_times_and_labels_are_told_in_cells_of_enough(center):
    order = order_of("relapse", center, curriculum="quickstart")
    told = center.sums(replace(order, subset=GRID)).sums[EVENTS]
    assert not few(told, MINIMUM).any()
    described = center.describe(order)
    assert described.is_usable and not few(np.array(list(described.counts.values())), MINIMUM).any()
    if described.sums:
        at_risk, censored = described.sums["censoring_at_risk"], described.sums["censoring_censored"]
        assert not few(np.r_[censored, -np.diff(at_risk) - censored[:-1], at_risk], MINIMUM).any()


@pytest.mark.parametrize("subset", ["train", "test"])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6])
def test_scores_tell_of_no_single_patient(center, subset, threshold):
    """DEFECTS C2: a sweep of the threshold took the risk groups apart, patient by patient."""
    order = order_of("relapse", center, curriculum="quickstart", subset=subset, threshold=threshold)
    reply = center.evaluate(order)
    assert reply.is_usable
    for name in ("km_at_risk", "km_events", "reliability_cases", "d_calibration", "events"):
        assert name not in reply.sums or not few(reply.sums[name], MINIMUM).any()


def test_a_center_of_four_says_the_minimum_and_nothing_else(root, tmp_path):
    small = write_cohort(tmp_path / "four", {"CHUP": 6})
    file = write_centers(tmp_path, small, ["CHUP"], minimum_cell=MINIMUM, minimum_cases=MINIMUM)["CHUP"]
    forget()
    center = Center.open(file)
    order = order_of("relapse_exact", center)
    described = center.describe(order)
    assert described.code == "declined.cases" and not described.sums
    assert set(described.counts.values()) <= {0, MINIMUM}
    with pytest.raises(PolicyRefusal, match="usable training cases"):
        center.sums(order)
    scored = center.evaluate(replace(order_of("relapse", center, curriculum="quickstart"), subset="test"))
    assert not scored.sums and scored.counts == {"cases": MINIMUM, "skipped": 0, "suppressed": 1}
