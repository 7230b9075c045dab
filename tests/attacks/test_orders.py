"""Every action x every order that a hospital must not answer as it stands: the code, and nothing tells of a few.

The orders go as messages to the hospital's own app, whose policy has the default minimums of 5. Afterwards its record
of what left is whole, and the honest order is answered.
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from client.app import Verbs
from client.center.center import Center
from client.center.models import initial_state
from client.commands.erase import erase
from client.policy.policy import UNSAID
from client.privacy.spending import Entry, charge, read_account
from common.config.privacy import DpSgd, NoisedSums
from common.config.run import Split
from common.exact.columns import COUNT
from common.exact.objectives import LOSS
from common.exact.ridge import CASES, GRAM, MOMENT
from common.exact.step import BETA, MEAN, SCALE
from common.privacy import plan
from common.privacy.accounting import Release
from common.protocol.wire import FIT_SUMS
from common.store.ledger import Ledger
from common.tasks import build_task
from common.tasks.cells import few
from common.tasks.cuts import EVENTS
from common.tasks.unlearned.paired import paired_cells
from simulations.virtual.local_grid import LocalGrid
from tests.helpers.actions import ACTIONS, EXACT, answered, ask, order_of
from tests.helpers.small import forget, write_centers, write_cohort

MINIMUM, PATIENTS, MORE = 5, 30, 3
CODE = "CHUP"
SMOKES, UNWEIGHED = 4, (6, 7)  # numbers of patients whom the hospital's own split lets train

# What the answer's code is, by attack; the actions that are not named have the first one's.
ONE_FEWER = "ok", dict.fromkeys(EXACT, "declined.difference")
ONE_MORE = "ok", {}
FOUR = "declined.cases", dict.fromkeys(("scores", "curves", "validation", "paired", "grid"), "ok")
RARE = "ok", {}
FOREIGN = "declined.split", {}


def expected(row, name):
    code, other = row
    return other.get(name, code)


def rare(root: Path) -> Path:
    """Of those who train, one has tobacco recorded, two no weight, one has relapsed on a day of its own."""
    table = root / "hecktor2022_clinical_info_training.csv"
    lines = table.read_text().splitlines()
    lines[SMOKES] = lines[SMOKES].replace(",80,,0,", ",94,1,0,")
    for place in UNWEIGHED:
        lines[place] = lines[place].replace(",80,,0,", ",,,0,")
    lines[1:] = [_aged(line, 40 + place) for place, line in enumerate(lines[1:])]
    table.write_text("\n".join(lines) + "\n")
    return root


def _aged(line: str, age: int) -> str:
    row = line.split(",")
    return ",".join([*row[:5], str(age), *row[6:]])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return rare(write_cohort(tmp_path_factory.mktemp("cohort"), {CODE: PATIENTS}))


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """The same patients and three more: one for each fold."""
    return rare(write_cohort(tmp_path_factory.mktemp("grown"), {CODE: PATIENTS + MORE}))


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Of whom three or four train, and as few are on every other side."""
    return write_cohort(tmp_path_factory.mktemp("four"), {CODE: 6})


@pytest.fixture(scope="module", autouse=True)
def in_a_run():
    """Flower's messages belong to one."""
    LocalGrid({}, workers=0).close()


@pytest.fixture
def hospital(tmp_path, cohort):
    forget()
    return written(tmp_path, cohort)


def written(folder: Path, root: Path) -> Path:
    return write_centers(folder, root, [CODE], minimum_cell=MINIMUM, minimum_cases=MINIMUM)[CODE]


def is_whole(file: Path) -> bool:
    """Whether the vault's record of what left can be read and its chain holds."""
    vault = Path(Center.open(file).vault)
    return all(Ledger(path).verify() > 0 for path in vault.glob("*.jsonl"))


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def tells_of_few(name: str, reply) -> list[str]:
    """Sums and counts of the reply that are of 1 to 4 patients."""
    spec = order_of(name).step.task
    rules = paired_cells(spec) if name == "paired" else build_task(spec).cells
    counts = {sum_ for rule in rules for sum_ in getattr(rule, "counts", ())} | {EVENTS, COUNT, CASES, "fit.cases"}
    counts |= {rule.at_risk for rule in rules if hasattr(rule, "at_risk")}
    cells = {sum_: few(reply.sums[sum_], MINIMUM).any() for sum_ in counts & set(reply.sums)}
    told = {"train", "validation", "test", "cases", "skipped", "waiting", "adjusted"}
    cells |= {count: few(np.array(reply.counts[count]), MINIMUM).any() for count in told & set(reply.counts)}
    if GRAM in reply.sums:
        first = reply.sums[GRAM][:, 0, 1:]
        flags = first[np.isclose(first, np.round(first)) & (first >= 0)]
        cells[GRAM] = few(flags[flags < MINIMUM], MINIMUM).any()
    return sorted(name for name, found in cells.items() if found)


def test_every_action_of_the_protocol_has_its_rows():
    """A new kind of sums, or a new verb, must be attacked here too."""
    from client.policy.policy import SUMS

    assert {action.sums for action in ACTIONS.values()} == {"", *SUMS}
    kinds = {"train", "query.describe", "query.sums", "evaluate"}
    assert {action.kind for action in ACTIONS.values()} == kinds
    of_patients = {verb.name for verb in fields(Verbs)} - {"declared", "masking", "stage"}
    # what a stage may do: test_stages.py; a phase of a secure sum: tests/server/masking
    assert {kind.rpartition(".")[2] for kind in kinds} == of_patients


@pytest.mark.parametrize("name", ACTIONS)
def test_an_honest_order_is_answered_and_a_rare_flag_is_in_no_sum(hospital, name):
    reply = ask(hospital, name)
    assert reply.code == expected(RARE, name) and (reply.state or reply.sums)
    assert tells_of_few(name, reply) == [] and is_whole(hospital)


def test_without_minimums_the_rare_flag_is_in_the_sums_of_this_very_cohort(tmp_path, cohort):
    """So that the row above can fail: whoever has it trains, and the step looks at it."""
    forget()
    file = write_centers(tmp_path, cohort, [CODE])[CODE]
    assert {f"{CODE}-{number:03d}" for number in (SMOKES, *UNWEIGHED)} <= over(file, "gram")
    assert GRAM in tells_of_few("gram", ask(file, "gram"))


@pytest.mark.parametrize("name", ACTIONS)
def test_a_foreign_split_is_refused(hospital, name):
    first = ask(hospital, name)
    for split in (Split(folds=10, validation=0.0), Split(seed=7, folds=3, validation=0.34)):
        refused = ask(hospital, name, lambda order, split=split: replace(order, split=split))
        assert refused.code == expected(FOREIGN, name) and not (refused.state or refused.sums or refused.counts)
    again = ask(hospital, name)
    assert again.code == "ok" and same(again.sums, first.sums) and is_whole(hospital)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_few_patients_say_the_minimum_and_nothing_else(tmp_path, four, name):
    forget()
    file = written(tmp_path, four)
    reply = ask(file, name)
    assert reply.code == expected(FOUR, name) and not reply.state and not reply.sums
    assert tells_of_few(name, reply) == [] and is_whole(file)


@pytest.mark.parametrize("name", ACTIONS)
def test_of_two_orders_that_differ_by_newcomers_the_second_says_what_the_first_did(tmp_path, cohort, grown, name):
    forget()
    file = written(tmp_path, cohort)
    before, first = over(file, name), ask(file, name)
    forget()
    file = written(tmp_path, grown)  # the same vault
    after, second = over(file, name), ask(file, name)
    assert 0 < len(after) - len(before) < MINIMUM and before < after
    assert second.code == expected(ONE_MORE, name) and tells_of_few(name, second) == []
    if name == "train":
        assert any(not torch.equal(first.state[n], second.state[n]) for n in first.state), "training goes on"
    else:
        assert same(first.sums, second.sums) and second.counts.get("waiting", MINIMUM) == MINIMUM
    assert is_whole(file) and differ_by_a_few(first, second) == []


@pytest.mark.parametrize("name", ACTIONS)
def test_of_two_orders_that_differ_by_an_erased_patient_the_second_says_nothing_of_it(hospital, name):
    patients, first = over(hospital, name), ask(hospital, name)
    erase(Center.open(hospital), sorted(patients)[0])
    forget()
    assert len(over(hospital, name)) == len(patients) - 1
    second = ask(hospital, name)
    assert second.code == expected(ONE_FEWER, name) and is_whole(hospital)
    assert (first.state or first.sums) and not second.sums.keys() - {"fit.loss", "fit.cases", "fit.batches"}
    assert bool(second.state) == (name == "train"), "training goes on"
    assert second.code != "ok" or differ_by_a_few(first, second) == []


def differ_by_a_few(first, second) -> list[str]:
    """Counts of patients in which two answers differ by 1 to 4; a number of batches must not differ at all."""
    told = [reply.counts | {n: float(reply.sums[n]) for n in FIT_SUMS if n in reply.sums} for reply in (first, second)]
    names = {*told[0], *told[1]} - {"merged", "suppressed", "afresh", "ahead", "fit.loss"}
    apart = {name: abs(told[0].get(name, 0) - told[1].get(name, 0)) for name in names}
    assert not any(apart.get(name) for name in ("batches", "fit.batches") if told[0].get("cases"))
    return sorted(name for name, difference in apart.items() if few(difference, MINIMUM))


def with_variables(file: Path, name: str, variables: list[str]):
    """The action's order over the record alone, of these variables."""
    order = order_of(name)
    step = copy.deepcopy(order.step)
    step.modalities = ["RECORD"]
    step.adapter.parts["linear"].variables = variables
    order = replace(order, step=step, state={})
    return replace(order, state=initial_state(Center.open(file).config, order))


def test_other_columns_do_not_ask_for_another_set_of_an_erased_target(hospital):
    """The intercept times the target is in every Gram sum: its difference was the label of the one who was erased."""
    first = answered(hospital, with_variables(hospital, "gram", ["age"]), "query.sums")
    assert first.code == "ok" and first.sums[GRAM][0, 0, 0] == len(over(hospital, "gram"))
    erase(Center.open(hospital), sorted(over(hospital, "gram"))[0])
    forget()
    for variables in (["age"], ["gender"]):
        again = answered(hospital, with_variables(hospital, "gram", variables), "query.sums")
        assert again.code == "declined.difference" and not again.sums
    labels = answered(hospital, replace(order_of("gram"), step=rounds_of("gram")), "query.describe")
    assert labels.code == "ok" and not labels.sums, "counts of the same labels are the same question"


def rounds_of(name: str, rounds: int = 1):
    """The action's step as one of rounds, whose labels are counted."""
    step = copy.deepcopy(order_of(name).step)
    step.rounds = rounds
    return step


@pytest.mark.parametrize("kind", ["gram", "newton"])
def test_other_columns_are_answered_over_the_earlier_set_of_a_target(tmp_path, cohort, grown, kind):
    def asked(variables, file):
        order = with_variables(file, kind, variables)
        if kind == "gram":
            return answered(file, order, "query.sums")
        values, columns = len(order.state["linear/mean"]), order.state["linear/weight"].shape[1]
        order.known = {MEAN: np.zeros(values), SCALE: np.ones(values), BETA: np.zeros((1, columns))}
        assert answered(file, replace(order, round=0), "query.sums").code == "ok"
        return answered(file, order, "query.sums")

    forget()
    file = written(tmp_path, cohort)
    first, before = asked(["age"], file), over(file, kind)
    forget()
    file = written(tmp_path, grown)
    second = asked(["gender"], file)
    assert first.code == second.code == "ok" and len(over(file, kind)) > len(before)
    if kind == "gram":
        assert second.sums[GRAM][0, 0, 0] == first.sums[GRAM][0, 0, 0] == len(before)
        assert second.sums[MOMENT][0, 0] == first.sums[MOMENT][0, 0]
    else:
        assert second.sums[LOSS] == pytest.approx(first.sums[LOSS])


@pytest.mark.parametrize("name", ["train", *EXACT])
def test_a_step_without_rounds_is_neither_trained_nor_summed(hospital, name):
    """It would walk around every rule that looks at a step's rounds: noise, batches, epochs."""
    refused = answered(hospital, replace(order_of(name), step=rounds_of(name, 0)), ACTIONS[name].kind)
    assert refused.code == "config" and not (refused.state or refused.sums or refused.counts)


def with_noise(file: Path, spec, run: str = "ab" * 16):
    """An exact fit of the record alone, its sums under noise."""
    order = with_variables(file, "gram", ["age", "tobacco"])
    order.step.privacy, order.step.rounds = spec, 1
    return replace(order, run=run)


@pytest.fixture
def by_the_order(monkeypatch):
    """Noise as little as an order wants it, without the search for it."""
    monkeypatch.setattr(plan, "noise_for", lambda epsilon, delta, **options: 0.5 if epsilon <= 8 else 0.02)


def test_noise_stands_in_for_the_minimums_up_to_an_epsilon_over_everything(hospital, by_the_order):
    """Noised sums are over everybody: with next to no noise, or answers without end, they say who has a rare flag."""
    assert UNSAID.of == plan.SUMS
    for spec in (NoisedSums(epsilon=1000.0, cohort=60), NoisedSums(epsilon=8.0, cohort=60, noise_seed=3)):
        refused = answered(hospital, with_noise(hospital, spec), "query.sums")
        assert refused.code == ("declined.budget" if spec.noise_seed is None else "declined.privacy")
        assert not refused.sums and not read_account(Center.open(hospital).vault).charges
    updates = Entry("ef" * 16, "private", 1, "0" * 64, (Release(0.3),))  # guarded by minimums, not by this ceiling
    charge(Center.open(hospital).vault, updates)
    first = answered(hospital, with_noise(hospital, NoisedSums(cohort=60)), "query.sums")
    assert first.code == "ok" and first.sums
    again = answered(hospital, with_noise(hospital, NoisedSums(cohort=60), run="cd" * 16), "query.sums")
    assert again.code == "declined.budget" and not again.sums, "a mean of many answers has little noise"


def test_a_draw_of_a_patient_is_no_update_where_noise_has_no_ceiling(hospital, by_the_order):
    order = order_of("train")
    order.step = copy.deepcopy(order.step)
    order.step.task.alpha = 0.0  # DeepHit's ranking couples patients
    order.step.privacy = DpSgd(epsilon=1000.0, cohort=1000, batch=2, draws=1)
    assert answered(hospital, order, "train").code == "declined.cases"
    assert not read_account(Center.open(hospital).vault).charges
    order.step.privacy = DpSgd(cohort=20, batch=4)
    reply = answered(hospital, order, "train")
    assert reply.code == "ok" and reply.counts["cases"] == 20 and not reply.sums


def over(file: Path, name: str) -> set[str]:
    """Whom the action is about."""
    return {case.patient for case in Center.open(file).part(order_of(name), ACTIONS[name].over)}
