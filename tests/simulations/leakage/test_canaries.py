"""The audit of DP-SGD: code as shipped stays below its claim, and each fault is caught."""

import pytest

from client.privacy.dp_sgd import DpSgd
from common.privacy.accounting import epsilon
from common.privacy.plan import Plan
from simulations.leakage import canaries
from simulations.leakage.canaries import audit, secret_divisor, tells_neighbors_apart

PLAN = Plan(cohort=72, batch=18, draws=60, clip=1.0, delta=1 / 720, noise=1.4)


@pytest.fixture(scope="module")
def audited():
    return {found.code: found for found in audit(PLAN, canaries=192, seed=1)}


def test_the_claim_is_at_most_eight(audited):
    assert epsilon([PLAN.release], PLAN.delta) == pytest.approx(audited["as shipped"].claimed)
    assert 5 < audited["as shipped"].claimed <= 8


def test_code_as_shipped_lies_below_its_claim_and_is_no_empty_test(audited):
    shipped = audited["as shipped"]
    assert not shipped.is_caught and 1 < shipped.normal < shipped.claimed and shipped.counted < shipped.claimed


@pytest.mark.parametrize("code", ["half the noise", "no clipping", "no noise"])
def test_each_fault_is_caught(audited, code):
    assert audited[code].is_caught and audited[code].stamp.startswith("not private")


def test_the_draws_are_the_products_own(monkeypatch):
    """What is audited breaks with the code that hospitals run."""
    monkeypatch.setattr(DpSgd, "learn", lambda self, job, draw, learn: (_ for _ in ()).throw(ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        audit(PLAN, canaries=8, codes={"as shipped": canaries.CODES["as shipped"]})


def test_a_secret_divisor_is_caught_by_a_neighboring_cohort():
    shipped = Plan(cohort=72, batch=8, draws=1, clip=1.0, delta=1 / 720, noise=1.4)
    assert not tells_neighbors_apart(lambda patients: shipped, 18)
    assert tells_neighbors_apart(lambda patients: secret_divisor(shipped, patients), 18)
    assert (secret_divisor(shipped, 17).batch, secret_divisor(shipped, 18).batch) == (5, 6)
