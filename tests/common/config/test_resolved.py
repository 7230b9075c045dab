"""Every shipped curriculum resolves to the run that it was: names, order of steps and parts, and values.

A change that is meant is recorded anew, with the reason in docs/LOG.md: ``{**recorded(), "digests": {...}}``.
"""

from __future__ import annotations

import pytest

from common.config.load import CONFIGS, compose_run
from tests.helpers.resolved import digest, recorded

RECORDED = recorded()
CURRICULA = sorted(path.stem for path in (CONFIGS / "curriculum").glob("*.yaml"))


def test_every_curriculum_that_was_shipped_still_is():
    shipped = {command for command in RECORDED["digests"] if command.startswith("curriculum=")}
    assert shipped <= {f"curriculum={name}" for name in CURRICULA}


@pytest.mark.parametrize("command", sorted(c for c in RECORDED["digests"] if c.startswith("curriculum=")))
def test_it_resolves_to_the_same_run(command):
    assert digest(compose_run([command, "with_controls=true"]), RECORDED["options"]) == RECORDED["digests"][command]


def test_a_digest_sees_a_value_an_order_and_not_a_new_options_default():
    run = compose_run(["curriculum=smoke", "with_controls=true"])
    before = digest(run, RECORDED["options"])
    fewer = {name: [o for o in options if o != "mixed_precision"] for name, options in RECORDED["options"].items()}
    assert digest(run, fewer) != before  # the option was recorded, at its default: leaving it out is seen
    run.steps = dict(reversed(run.steps.items()))
    assert digest(run, RECORDED["options"]) != before
    run.steps = dict(reversed(run.steps.items()))
    run.runtime.threads = 2
    assert digest(run, RECORDED["options"]) != before
