"""A step's noise is searched for once, and what is read back keeps the step's epsilon or is searched for again."""

import pytest

from client.privacy.noised import calibration
from client.privacy.noised.calibration import FILE, plan_at
from common.config.privacy import DpSgd
from common.config.step import Step
from common.privacy import plan
from common.privacy.accounting import epsilon
from common.store.sealed import read_sealed, write_sealed

STEP = Step(name="relapse", rounds=2, privacy=DpSgd(epsilon=8.0, cohort=20, batch=10, draws=1))


@pytest.fixture
def searches(monkeypatch):
    """Every call that had to search, by the noise that was offered."""
    offered, search = [], plan.noise_for

    def counted(*arguments, found_before, **options):
        found = search(*arguments, found_before=found_before, **options)
        if found != found_before:
            offered.append(found_before)
        return found

    monkeypatch.setattr(plan, "noise_for", counted)
    return offered


def kept(vault):
    return read_sealed(vault / FILE, remedy="")


def test_a_second_process_confirms_and_does_not_search(tmp_path, searches):
    first = plan_at(tmp_path, STEP, "MDA")
    assert (plan_at(tmp_path, STEP, "MDA"), searches) == (first, [None])
    assert list(kept(tmp_path).values()) == [first.noise]


def test_too_little_noise_in_the_file_is_never_believed(tmp_path, searches):
    honest = plan_at(tmp_path, STEP, "MDA")
    (question,) = kept(tmp_path)
    write_sealed(tmp_path / FILE, {question: 0.9 * honest.noise})
    found = plan_at(tmp_path, STEP, "MDA")
    assert found == honest and epsilon([found.release] * 2, found.delta) <= 8.0
    assert searches == [None, 0.9 * honest.noise]
    assert kept(tmp_path) == {question: honest.noise}


@pytest.mark.parametrize("content", [b"", b"{", b'{"sha256": "0", "value": {}}', b"[1]"])
def test_a_damaged_file_costs_a_search(tmp_path, searches, content):
    (tmp_path / FILE).write_bytes(content)
    assert plan_at(tmp_path, STEP, "MDA").noise == next(iter(kept(tmp_path).values()))
    assert searches == [None]


def test_other_numbers_are_another_question_and_a_look_changes_nothing(tmp_path):
    plan_at(tmp_path, STEP, "MDA", keep=False)
    assert not (tmp_path / FILE).exists()
    plan_at(tmp_path, STEP, "MDA")
    other = Step(name="relapse", rounds=2, privacy=DpSgd(epsilon=4.0, cohort=20, batch=10, draws=1))
    assert plan_at(tmp_path, other, "MDA").noise > plan_at(tmp_path, STEP, "MDA").noise
    assert len(kept(tmp_path)) == 2


def test_the_oldest_plans_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "MOST", 1)
    plan_at(tmp_path, STEP, "MDA")
    later = Step(name="relapse", rounds=1, privacy=STEP.privacy)
    plan_at(tmp_path, later, "MDA")
    assert list(kept(tmp_path).values()) == [plan_at(tmp_path, later, "MDA").noise]
