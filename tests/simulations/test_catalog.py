"""Every option has a meaning, read from the one place where it is declared."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.config.federation import FEDERATIONS
from simulations.catalog import matching, meaning_of, options_of_run

EVERY = options_of_run()


@dataclass
class Declared:
    """One of each way to say a meaning."""

    beside: int = 1  # beside it
    # Above it, on
    # two lines.
    above: list[int] = field(default_factory=lambda: [1])
    silent: str = ""


@dataclass
class Inheriting(Declared):
    silent: str = "now"  # said here


def test_a_meaning_is_the_comment_beside_or_above_its_field():
    assert meaning_of(Declared, "beside") == "beside it"
    assert meaning_of(Declared, "above") == "Above it, on two lines."
    assert meaning_of(Declared, "silent") == "" and meaning_of(Inheriting, "silent") == "said here"
    assert meaning_of(Inheriting, "beside") == "beside it"


def test_every_option_of_a_run_has_a_meaning():
    assert [option.path for option in EVERY if not option.meaning] == []


def test_defaults_and_units_are_the_dataclasses():
    [deadline] = matching(EVERY, "steps.STEP.federation.deadline_s")
    assert (deadline.default, deadline.unit, deadline.kinds) == ("3600.0", "s", "")
    [spacing] = matching(EVERY, "steps.relapse.view.spacing_mm")
    assert (spacing.default, spacing.unit) == ("[3.0, 3.0, 3.0]", "mm")
    faulty = {o.kinds: o.default for o in matching(EVERY, "steps.relapse.federation.faulty")}
    assert faulty["bulyan"] == "1" and len(faulty) == 2


def test_every_kind_is_an_option_with_what_it_does():
    kinds = {option.kinds for option in matching(EVERY, "steps.STEP.federation.kind")}
    assert kinds == set(FEDERATIONS)
    part = "steps.STEP.adapter.parts.PART"
    found = [option.path for option in matching(EVERY, "steps.relapse.adapter.parts.within.rank")]
    assert found == [f"{part}.rank", f"{part}.ranks"]
