"""An adapter's score travels with its key, and where there is none the words say why."""

from __future__ import annotations

import pytest

from common.store.tested import NEVER, in_words, known_by_key, score_in, scores_by_key


def finished(key: str = "k", **row) -> dict:
    """A step that two centers scored, in two modes, after an earlier task that it scored too."""
    own = {"step": "a", "task": "a", "metric": "c_index", "center": "pooled", "mode": "CT", "value": 0.6, "n": 20}
    full = own | {"mode": "CT+PET", "value": 0.7, "low": 0.6, "high": 0.79} | row
    others = [own | {"center": "CHUM", "value": 0.1}, own | {"task": "b"}, own | {"metric": "uno"}]
    return {
        "kind": "step_finished", "time": "2026-11-28T10:00:00Z", "step": "a", "task": "a", "key": key,
        "primary": {"a": "c_index", "b": "dice"}, "evaluated_at": ["CHUM", "MDA"], "scores": [full, *others, own],
        "known": {"temperature": 2.0},
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "value"), [("CT", 0.6), ("CT+PET", 0.7), ("", 0.7), ("PET", 0.7)])
def test_the_score_of_what_a_case_shows_or_of_the_fullest_mode(mode, value):
    assert score_in(scores_by_key([finished()])["k"], mode)["value"] == value


def test_in_words():
    card = scores_by_key([finished()])["k"]
    assert in_words(score_in(card)) == (
        "tested: C-index 0.700 [0.600, 0.790] on 20 cases of CHUM, MDA (CT+PET), 2026-11-28"
    )
    noised = {**score_in(card), "low": None, "high": None, "n": None, "noise": 0.05}
    assert in_words(noised) == (
        "tested: C-index 0.700, with noise of a standard deviation of 0.050, at CHUM, MDA (CT+PET), 2026-11-28"
    )
    assert in_words(score_in(card, "CT")) == "tested: C-index 0.600 on 20 cases of CHUM, MDA (CT), 2026-11-28"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"value": None, "n": 7}, "not scored: C-index is not defined on the 7 test cases of CHUM, MDA (CT+PET)"),
        ({"value": None, "n": None}, "not scored: C-index was suppressed or not answered at CHUM, MDA (CT+PET)"),
        ({"value": None, "n": 0}, "not scored: C-index was suppressed or not answered at CHUM, MDA (CT+PET)"),
    ],
)
def test_no_number_is_explained(row, words):
    assert in_words(score_in(scores_by_key([finished(**row)])["k"])).startswith(words)


def test_what_nobody_scored_is_never_scored():
    assert score_in(None) is None and in_words(None) == NEVER
    assert scores_by_key([finished() | {"scores": []}]) == {}


def test_a_refitted_adapter_has_the_remaining_centers_score_and_the_old_one_keeps_its_own():
    again = finished("new", value=0.55) | {"kind": "step_rescored", "evaluated_at": ["MDA"], "known": {}}
    del again["primary"]
    found = scores_by_key([finished(), again])
    assert (score_in(found["k"])["value"], score_in(found["new"])["value"]) == (0.7, 0.55)
    assert found["new"]["centers"] == ["MDA"]
    assert known_by_key([finished(), again]) == {"k": {"temperature": 2.0}, "new": {}}
