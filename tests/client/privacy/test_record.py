"""The release record: no two answers to one question differ by a few patients, whoever comes or goes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.case import Case
from client.privacy.record import FILE, TARGET, Answered, Question, chosen, read_record, settled, waiting_at
from client.vault.cohort import ERASED, append, hashed_id
from client.vault.vault import VaultError
from common.errors import PolicyRefusal
from tests.client.privacy.test_combinations import by_looking_at_all
from tests.client.privacy.test_rows import HECKTOR

AGE, IMAGE = Question("rows", frozenset({"age"})), Question("rows", frozenset({"image"}))
BOTH = Question("rows", frozenset({"age", "image"}))


def people(count, first=0):
    return [person(f"P-{n:03d}") for n in range(first, first + count)]


def person(patient):
    return Case(patient, "P", {}, None, {}, None, None, None, None)


def test_a_target_is_one_question_in_rows_and_in_labels():
    gram, labels = Question("rows", frozenset({"age", "target|a|b"})), Question("labels", frozenset({"target|a|b"}))
    assert gram.meets(labels) and labels.meets(gram) and not AGE.meets(labels)
    assert not Question("scores", frozenset({"a|b"})).meets(labels)
    assert not Question("labels", AGE.about).meets(AGE), "only a target is the same in both"


def ask(vault, cases, question=AGE, *, minimum=5, **others):
    return chosen(question, cases, vault=vault, minimum=minimum, **others)


def test_newcomers_wait_until_enough_have_come(tmp_path):
    assert ask(tmp_path, people(20)).cases == people(20)
    for more in (1, 4):
        again = ask(tmp_path, people(20 + more))
        assert again.cases == people(20) and again.waiting == more
        assert waiting_at(tmp_path, people(20 + more), minimum=5) == more
    assert ask(tmp_path, people(25)).cases == people(25), "five have come"
    assert ask(tmp_path, people(20)).cases == people(20), "the very same question is always answered"
    assert waiting_at(tmp_path, people(25), minimum=5) == 0


def test_after_an_erasure_exact_answers_wait_for_the_difference(tmp_path):
    everyone, key = people(20), b"k" * 32
    append(tmp_path, ERASED, {"patient": "nobody here"}, key=key)
    ask(tmp_path, everyone)
    append(tmp_path, ERASED, {"patient": hashed_id(key, everyone[0].patient)}, key=key)
    with pytest.raises(PolicyRefusal, match=r"since a patient was erased.*Training goes on") as refusal:
        ask(tmp_path, everyone[1:])
    assert refusal.value.code == "declined.difference"
    found = ask(tmp_path, people(24, first=1))  # one went and five came: six make the difference
    assert found.cases == people(24, first=1)


def test_another_question_is_answered_over_its_own_patients(tmp_path):
    """A step that needs another image has other columns; one whose columns were asked before is the same question."""
    ask(tmp_path, people(20), AGE)
    assert ask(tmp_path, people(18), IMAGE).cases == people(18)
    again = ask(tmp_path, people(18), BOTH)  # two lack the image, and everybody's age was told
    assert len(again.cases) == 13 and again.waiting == 5, "it leaves out as many more as make both differences enough"
    assert ask(tmp_path, people(18), BOTH) == again
    assert ask(tmp_path, people(18), Question("scores", AGE.about)).cases == people(18), "of another kind"


def test_looking_writes_nothing_and_a_minimum_of_one_keeps_nothing(tmp_path):
    assert ask(tmp_path, people(9), keep=False).cases == people(9)
    assert ask(tmp_path, people(9), minimum=1).cases == people(9)
    assert ask(tmp_path, people(8), minimum=1).cases == people(8)
    assert not (tmp_path / FILE).exists()


def test_the_record_names_nobody_and_a_damaged_one_is_a_sentence(tmp_path):
    ask(tmp_path, people(9))
    text = (tmp_path / FILE).read_text()
    assert "P-0" not in text and (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert read_record(tmp_path).answered[0].patients == {read_record(tmp_path).hashed(c.patient) for c in people(9)}
    (tmp_path / FILE).write_text(text.replace("rows", "raws"))
    with pytest.raises(VaultError, match="over whom exact sums were answered, cannot be read"):
        ask(tmp_path, people(9))


def test_an_answer_cut_off_the_end_of_the_record_is_missed(tmp_path):
    """Without its line the same question over one patient more would be answered."""
    ask(tmp_path, people(9))
    ask(tmp_path, people(20))
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(b"".join(lines[:-1]))
    with pytest.raises(VaultError, match=r"has 2 lines.*knows of 3"):
        ask(tmp_path, people(21))
    (tmp_path / FILE).unlink()
    with pytest.raises(VaultError, match="it is gone"):
        ask(tmp_path, people(21))


NAMES = [f"{n:02d}" for n in range(14)]


ABOUT = ["age", "image", f"{TARGET}a", f"{TARGET}b"]
QUESTIONS = st.one_of(
    st.builds(Question, st.just("rows"), st.frozensets(st.sampled_from(ABOUT), min_size=1)),
    st.builds(Question, st.just("labels"), st.frozensets(st.sampled_from(ABOUT[2:]), min_size=1)),
    st.builds(Question, st.sampled_from(["scores", "keepsakes"]), st.frozensets(st.sampled_from("ab"), min_size=1)),
)


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(st.tuples(QUESTIONS, st.sets(st.sampled_from(NAMES), min_size=5)), max_size=6),
    gone=st.sets(st.sampled_from(NAMES), max_size=2),
    minimum=st.integers(2, 5),
)
def test_whatever_is_asked_no_answers_tell_of_a_few_together(asked, gone, minimum):
    """Any questions of any kinds in any order, patients erased half-way: no combination of the answers about one thing
    is a sum over a few."""
    answered: list[Answered] = []
    for place, (question, patients) in enumerate(asked):
        erased = gone if place >= len(asked) // 2 else set()
        try:
            found = settled(question, frozenset(patients - erased), answered, minimum=minimum, erased=erased)
        except PolicyRefusal:
            continue
        assert found <= patients - erased
        answered.append(Answered(question, found))
    for a, b in itertools.combinations(answered, 2):
        difference = len(a.patients ^ b.patients)
        assert not a.question.meets(b.question) or difference == 0 or difference >= minimum
    for kinds, about in (
        [(("rows",), one) for one in ABOUT[:2]]
        + [(("rows", "labels"), one) for one in ABOUT[2:]]
        + [((kind,), one) for kind in ("scores", "keepsakes") for one in "ab"]
    ):
        sets = {a.patients for a in answered if a.question.kind in kinds and about in a.question.about}
        assert not by_looking_at_all(sorted(sets, key=sorted), min(minimum, 4))


def test_hecktors_own_missingness_needs_no_refusal(tmp_path):
    """Relapse (489 of 524), HPV, T stage and PET steps ask for the same records over slightly different patients."""
    rng = np.random.default_rng(0)
    for code, (count, missing) in HECKTOR.items():
        cohort = [person(f"{code}-{n:03d}") for n in range(round(0.64 * count))]
        for lacking in (0, round(0.04 * count), round(0.64 * missing[3])):
            absent = set(rng.permutation(len(cohort))[:lacking])
            cases = [case for place, case in enumerate(cohort) if place not in absent]
            if len(cases) < 5:
                continue  # below the minimum altogether, it declines to train anyway
            found = ask(tmp_path / code, cases, BOTH)
            assert len(found.cases) >= (0.6 * len(cases) if len(cases) >= 30 else 5), (code, lacking)


def test_a_split_with_one_patient_held_out_tells_of_nobody(tmp_path):
    """DEFECTS A1: fourteen folds of one patient gave every age by subtraction."""
    ages = {case.patient: 50 + 3 * place for place, case in enumerate(people(14))}
    sums = []
    for fold in range(14):
        train = [case for place, case in enumerate(people(14)) if place != fold]
        try:
            cases = ask(tmp_path, train).cases
        except PolicyRefusal:
            continue
        sums.append({case.patient for case in cases})
    assert len(sums) >= 1
    for a, b in itertools.combinations(sums, 2):
        assert a == b or len(a ^ b) >= 5
    rows = np.array([[case.patient in one for case in people(14)] for one in sums], float)
    assert rows.any() and len(ages) == 14
    alone = [np.linalg.lstsq(rows.T, unit, rcond=None)[0] for unit in np.eye(14)]
    assert not any(np.allclose(rows.T @ weights, unit) for weights, unit in zip(alone, np.eye(14), strict=True))
