import math

import pytest
from opacus.accountants import RDPAccountant

from common.errors import ConfigError
from common.privacy.accounting import Release, epsilon, noise_for

SEVENTY_TWO = {"rate": 8 / 72, "draws": 450}  # 50 rounds of 9 steps
EIGHTEEN = {"rate": 8 / 18, "draws": 112}


@pytest.mark.parametrize(("patients", "schedule", "noise"), [(72, SEVENTY_TWO, 1.405), (18, EIGHTEEN, 2.31)])
def test_noise_for_epsilon_8_of_hospitals_of_72_and_18(patients, schedule, noise):
    found = noise_for(8.0, 1 / (10 * patients), **schedule, accountant="rdp")
    assert found == pytest.approx(noise, rel=1e-3)
    assert epsilon([Release(found, **schedule)], 1 / (10 * patients), "rdp") <= 8.0
    assert epsilon([Release(found * 0.998, **schedule)], 1 / (10 * patients), "rdp") > 8.0


def test_five_tasks_on_the_same_patients():
    tasks = [Release(1.405, **SEVENTY_TWO, kind=f"task {number}") for number in range(5)]
    assert epsilon(tasks, 1 / 720) == pytest.approx(20.8, abs=0.05)
    assert epsilon(tasks, 1 / 720, "rdp") == pytest.approx(22.9, abs=0.05)
    assert epsilon(tasks[:1], 1 / 720) == pytest.approx(7.06, abs=0.01)


SCHEDULES = [
    ([(1.405, 8 / 72, 450)], 1 / 720),
    ([(1.405, 8 / 72, 450), (5.0, 1.0, 3), (3.0, 0.2, 50)], 1 / 720),
    ([(2.31, 8 / 18, 112), (4.0, 8 / 18, 30), (8.0, 1.0, 2)], 1 / 180),
    ([(1.3, 256 / 60000, 3515)], 1e-5),
    ([(2.0, 1.0, 10)], 1 / 720),
]


@pytest.mark.parametrize(("rows", "delta"), SCHEDULES)
def test_rdp_is_opacus_own_within_a_hundredth(rows, delta):
    theirs = RDPAccountant()
    theirs.history = list(rows)
    ours = epsilon([Release(*row) for row in rows], delta, "rdp")
    assert ours == pytest.approx(theirs.get_epsilon(delta), rel=0.01)


@pytest.mark.parametrize(("rows", "delta"), SCHEDULES)
def test_prv_is_the_privacy_loss_distribution_of_dp_accounting_within_a_hundredth(rows, delta):
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    theirs = PLDAccountant()  # neighbours by adding or removing one
    for noise, rate, draws in rows:
        once = GaussianDpEvent(noise)
        theirs.compose(once if rate == 1 else PoissonSampledDpEvent(rate, once), draws)
    ours = epsilon([Release(*row) for row in rows], delta)
    assert ours == pytest.approx(theirs.get_epsilon(delta), rel=0.01)


def test_one_plain_gaussian_is_that_of_its_closed_form():
    """The analytic Gaussian mechanism (Balle & Wang 2018): noise 1 at epsilon 4.3772 has delta 1e-5."""
    assert epsilon([Release(1.0)], 1e-5) == pytest.approx(4.3772, rel=0.005)


def test_releases_that_are_alike_compose_in_any_order_and_split():
    whole = [Release(1.5, 0.2, 100), Release(4.0, 1.0, 2)]
    split = [Release(4.0), Release(1.5, 0.2, 60), Release(4.0, kind="moments"), Release(1.5, 0.2, 40)]
    assert epsilon(whole, 1e-3) == epsilon(split, 1e-3)


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], 1e-3) == 0.0
    assert epsilon([Release(1.0, 0.5, 0)], 1e-3) == 0.0
    assert epsilon([Release(0.0)], 1e-3) == math.inf
    assert epsilon([Release(0.0)], 1e-3, "rdp") == math.inf


def test_prv_never_says_more_than_rdp():
    for release in (Release(0.3, 0.5, 100), Release(200.0), Release(0.7, 0.3, 40)):
        assert epsilon([release], 1e-3) <= epsilon([release], 1e-3, "rdp") < math.inf


def test_earlier_releases_ask_for_more_noise_until_no_noise_is_enough():
    alone = noise_for(8.0, 1 / 720, **SEVENTY_TWO, accountant="rdp")
    after = noise_for(8.0, 1 / 720, **SEVENTY_TWO, earlier=[Release(5.0, 1.0, 3)], accountant="rdp")
    assert after > alone
    with pytest.raises(ConfigError, match=r"No noise keeps 450 more releases below epsilon 8 .* have spent"):
        noise_for(8.0, 1 / 720, **SEVENTY_TWO, earlier=[Release(0.4, 1.0, 3)], accountant="rdp")


def test_what_cannot_be_counted_is_said_at_once():
    with pytest.raises(ConfigError) as error:
        Release(-1.0, 1.5, -2)
    assert all(said in str(error.value) for said in ("noise is -1.0", "rate is 1.5", "draws is -2"))
    with pytest.raises(ConfigError, match="delta is 0"):
        epsilon([Release(1.0)], 0.0)
    with pytest.raises(ConfigError, match="'gdp' is no accountant; it can be prv or rdp"):
        epsilon([Release(1.0)], 1e-3, "gdp")
    with pytest.raises(ConfigError, match="epsilon is -1; it must be positive"):
        noise_for(-1.0, 1e-3, rate=0.1, draws=1)
