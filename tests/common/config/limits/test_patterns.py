"""Patterns from the network: whole names, few comparisons, nothing else means anything."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.limits.patterns import chosen, matches


@pytest.mark.parametrize(
    ("name", "pattern", "is_match"),
    [
        ("vit.blocks.0.norm.weight", "*.norm.weight", True),
        ("vit.blocks.0.norm.weight", "vit.*", True),
        ("vit.blocks.0.norm.weight", "norm", False),
        ("abc", "a?c", True),
        ("abc", "a?", False),
        ("", "*", True),
        ("", "?", False),
        ("a.c", "a.c", True),
        ("abc", "a.c", False),  # no regular expression
        ("A", "a", False),
        ("[a]", "[a]", True),  # nor a set of letters
    ],
)
def test_a_pattern_is_of_the_whole_name(name, pattern, is_match):
    assert matches(name, pattern) is is_match


@given(st.text("ab.", max_size=9), st.text("ab.*?", max_size=9))
def test_it_agrees_with_the_shells(name, pattern):
    assert matches(name, pattern) == fnmatchcase(name, pattern)


def test_the_worst_pattern_ends_at_once():
    started = time.perf_counter()
    assert not matches("a" * 200, "a*" * 100 + "b")
    assert not matches("a" * 27, "(a+)+b") and time.perf_counter() - started < 0.5


def test_what_is_left_out_is_not_chosen():
    names = ["image.a", "image.b", "text.a"]
    assert [n for n in names if chosen(n, ["*", "!text*"])] == ["image.a", "image.b"]
    assert [n for n in names if chosen(n, ["!text*"])] == []
