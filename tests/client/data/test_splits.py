"""Splits: disjoint, exhaustive, stratified, stable; the test folds partition the cases."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.case import Case
from client.data.layouts import find_cases
from client.data.splits import Deal, deal_of, deal_places, split_cases
from common.config.run import Split
from common.errors import ConfigError


def cohort(counts: dict[str, tuple[int, int, int]]) -> list[Case]:
    """Per center: numbers of patients with an event, without one, and without an outcome."""
    cases = []
    for center, numbers in counts.items():
        events = [event for event, n in zip((1, 0, None), numbers, strict=True) for _ in range(n)]
        for i, event in enumerate(events):
            days = None if event is None else 100.0 + i
            cases.append(Case(f"{center}-{i:03d}", center, {}, None, {}, days, event, None, None))
    return cases


COHORTS = st.dictionaries(
    st.sampled_from(["CHUM", "HMR", "MDA"]),
    st.tuples(st.integers(0, 12), st.integers(0, 25), st.integers(0, 9)),
    min_size=1,
).map(cohort)
SPLITS = st.builds(
    Split,
    seed=st.integers(0, 5),
    folds=st.integers(2, 6),
    fold=st.integers(0, 1),
    validation=st.sampled_from([0.1, 0.2, 0.25, 0.5]),
)


def names(cases: list[Case]) -> list[str]:
    return [case.patient for case in cases]


@given(COHORTS, SPLITS)
def test_parts_are_disjoint_exhaustive_and_in_order(cases, split):
    parts = split_cases(cases, split=split)
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(names(cases)) == sorted(p for part in parts.values() for p in names(part))
    for part in parts.values():
        assert names(part) == [p for p in names(cases) if p in set(names(part))]


@given(COHORTS, SPLITS)
def test_the_test_folds_partition_the_cases(cases, split):
    tests = [p for k in range(split.folds) for p in names(split_cases(cases, split=replace(split, fold=k))["test"])]
    assert sorted(tests) == sorted(names(cases))


@given(COHORTS, SPLITS)
def test_every_center_is_in_every_part(cases, split):
    parts = split_cases(cases, split=split)
    for center in {case.center for case in cases}:
        size = sum(case.center == center for case in cases)
        held = {name: sum(case.center == center for case in part) for name, part in parts.items()}
        if size >= max(3, split.folds) and split.folds >= 3:
            assert min(held.values()) >= 1
        if size - held["test"] >= 2:
            assert held["train"] >= 1 and held["validation"] >= 1


@settings(max_examples=40)
@given(COHORTS, SPLITS)
def test_folds_are_balanced_within_each_stratum(cases, split):
    for center in {case.center for case in cases}:
        for event in (0, 1):
            sizes = [
                sum(
                    c.center == center and c.event == event
                    for c in split_cases(cases, split=replace(split, fold=k))["test"]
                )
                for k in range(split.folds)
            ]
            complete = all(c.event is not None for c in cases)
            assert max(sizes) - min(sizes) <= (1 if complete else 2)


@given(COHORTS, SPLITS)
def test_a_new_patient_of_another_center_moves_nobody(cases, split):
    before = split_cases(cases, split=split)
    after = split_cases([*cases, *cohort({"CHUP": (2, 3, 1)})], split=split)
    for name, part in before.items():
        assert set(names(part)) == {p for p in names(after[name]) if not p.startswith("CHUP")}


@given(st.integers(1, 20), st.integers(5, 30), st.integers(0, 3), st.sampled_from([0, 1]))
def test_a_new_patient_of_another_stratum_moves_nobody(events, others, seed, new_event):
    cases = cohort({"HMR": (events, others, 0)})
    split = Split(seed=seed, folds=5, fold=1)
    newcomer = replace(cases[0], patient="HMR-900", event=new_event)
    before, after = split_cases(cases, split=split), split_cases([*cases, newcomer], split=split)
    unmoved = {case.patient for case in cases if case.event != new_event}
    for name, part in before.items():
        assert unmoved & set(names(part)) == unmoved & set(names(after[name]))


def test_shares_are_close_to_what_was_asked_for():
    cases = cohort({"MDA": (42, 154, 2)})
    for fold in range(5):
        parts = split_cases(cases, split=Split(folds=5, fold=fold, validation=0.2))
        assert len(parts["test"]) in (39, 40, 41) and len(parts["validation"]) in (31, 32, 33)
        assert all(0.18 < sum(case.event or 0 for case in part) / len(part) < 0.26 for part in parts.values())


def test_seed_decides_and_order_of_cases_does_not():
    cases = cohort({"MDA": (10, 30, 0)})
    test = lambda these, seed: set(names(split_cases(these, split=Split(seed=seed))["test"]))  # noqa: E731
    assert test(cases, 1) == test(cases[::-1], 1) != test(cases, 2)


GROWING = st.lists(st.lists(st.sampled_from([0, 1, None]), max_size=12), min_size=1, max_size=5)


@given(GROWING, SPLITS)
def test_growth_moves_nobody_and_stays_balanced(waves, split):
    cases, known = [], {}
    for wave in waves:
        cases += [
            Case(f"HMR-{len(cases) + i:03d}", "HMR", {}, None, {}, None, e, None, None) for i, e in enumerate(wave)
        ]
        new = deal_places(cases, deal_of(split), known=known)
        assert not set(new) & set(known)
        known |= new
    assert set(known) == set(names(cases))
    for event in (0, 1):
        folds = Counter(known[case.patient].fold for case in cases if case.event == event)
        sizes = [folds[fold] for fold in range(split.folds)]
        assert max(sizes) - min(sizes) <= 1
    for fold in range(split.folds):
        parts = Counter(place.part(fold) for place in known.values())
        assert parts["train"] >= 1 or parts.total() - parts["test"] < 1
        for event in (0, 1, None):
            rest = [known[c.patient].part(fold) for c in cases if c.event == event and known[c.patient].fold != fold]
            assert rest.count("validation") <= split.validation * len(rest) + 1


@given(COHORTS, SPLITS)
def test_who_has_a_place_is_not_dealt_again(cases, split):
    mine = [case for case in cases if case.center == cases[0].center] if cases else []
    places = deal_places(mine, deal_of(split), known={})
    assert deal_places(mine, deal_of(split), known=places) == {}
    by_part = split_cases(mine, split=split)
    assert {c.patient: places[c.patient].part(split.fold) for c in mine} == {
        case.patient: part for part, found in by_part.items() for case in found
    }


def test_the_empty_fold_of_a_small_center_is_filled_first():
    places = deal_places(cohort({"HMR": (1, 1, 3)})[:5], Deal(folds=5, validation=0.0), known={})
    assert sorted(place.fold for place in places.values()) == [0, 1, 2, 3, 4]


def test_small_centers_do_not_all_test_in_the_same_fold():
    cases = cohort({f"{chr(65 + i)}X": (0, 3, 0) for i in range(20)})
    sizes = [len(split_cases(cases, split=Split(folds=5, fold=k))["test"]) for k in range(5)]
    assert sum(sizes) == 60 and min(sizes) >= 5


@pytest.mark.parametrize("broken", [Split(fold=5), Split(folds=1), Split(validation=1.0), Split(fold=-1)])
def test_impossible_splits_are_refused(broken):
    with pytest.raises(ConfigError, match=r"data\.split"):
        split_cases([], split=broken)


def test_no_validation_when_none_is_asked_for():
    assert split_cases(cohort({"HMR": (4, 14, 0)}), split=Split(validation=0.0))["validation"] == []


@given(COHORTS, SPLITS)
def test_over_all_centers_each_has_its_share_rounded_up_or_down(cases, split):
    parts = split_cases(cases, split=replace(split, everywhere=False))
    assert names(parts["test"]) == names(split_cases(cases, split=split)["test"])
    for center in {case.center for case in cases}:
        train, validation = (sum(c.center == center for c in parts[name]) for name in ("train", "validation"))
        exact = split.validation * (train + validation)
        assert abs(validation - exact) < 1 + 1e-9 and (train > 0 or train + validation == 0)


def test_small_centers_add_up_to_the_share_and_some_have_nobody():
    cases = cohort({f"C{number}": (1, 2, 0) for number in range(200)})  # two of three do not test
    parts = split_cases(cases, split=Split(folds=3, validation=0.2, everywhere=False))
    rest = len(parts["train"]) + len(parts["validation"])
    assert 0.15 * rest < len(parts["validation"]) < 0.25 * rest
    assert len({case.center for case in parts["validation"]}) < 120
    everywhere = split_cases(cases, split=Split(folds=3, validation=0.2))
    assert len({case.center for case in everywhere["validation"]}) == 200


@settings(max_examples=30)
@given(COHORTS, COHORTS)
def test_over_all_centers_too_who_has_a_place_keeps_it(first, second):
    deal = Deal(seed=1, folds=3, validation=0.25, everywhere=False)
    early = [case for case in first if case.center == "MDA"]
    known = deal_places(early, deal, known={})
    grown = early + [replace(case, patient=f"late {case.patient}") for case in second if case.center == "MDA"]
    later = deal_places(grown, deal, known=known)
    assert not {*known} & {*later} and {*known, *later} == {*names(grown)}
    places = known | later
    for fold in range(3):
        rest = [place for place in places.values() if place.fold != fold]
        assert abs(sum(fold in place.validates for place in rest) - 0.25 * len(rest)) < 2


def test_real_cases_split_at_every_center(shared_data):
    cases = find_cases(shared_data / "sts7")
    for fold in range(3):
        parts = split_cases(cases, split=Split(folds=3, fold=fold))
        for part in parts.values():
            assert len({case.center for case in part}) == 7
