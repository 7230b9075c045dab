"""A silence is broken by what is under way; while lines come by themselves, nothing is added."""

from __future__ import annotations

import sys
import time

import pytest

from common.runtime.pulse import in_words, signs_of_life, under_way


def test_a_silence_is_broken_by_what_is_under_way(capsys):
    with signs_of_life(every_s=0.1):
        under_way("drawing 3 cases")
        time.sleep(0.35)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 3 and set(lines) == {"  ... drawing 3 cases, for 1 s"}


def test_nothing_is_added_while_lines_come(capsys):
    with signs_of_life(every_s=0.2):
        for number in range(8):
            print(number)
            time.sleep(0.05)
    assert capsys.readouterr().out.split() == [str(number) for number in range(8)]


def test_standard_output_is_as_it_was_even_after_an_error():
    before = sys.stdout
    with pytest.raises(ZeroDivisionError), signs_of_life():
        raise ZeroDivisionError
    assert sys.stdout is before


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (45, "45 s"), (89, "89 s"), (100, "2 min"), (240, "4 min"), (7800, "2 h 10 min")],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
