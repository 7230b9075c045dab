"""A step's text from the network is refused before anything is made of it, with the place and never with a lookup."""

import json

import pytest

from common.config.limits.untrusted import MOST_CHARACTERS, plain_json
from common.config.load import compose_run, step_from_json, step_to_json
from common.errors import ConfigError

STEP = step_to_json(compose_run(["curriculum=smoke"]).steps["tumour_ct"])


def changed(**options: object) -> str:
    return json.dumps({**json.loads(STEP), **options})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed(name="${oc.env:SECRET}"), r"\$\{', which would be looked up on this machine, at name"),
        (changed(view={**json.loads(STEP)["view"], "crop": "${seed}"}), "at view.crop"),
        (changed(centers=["a"] * 1001), "1001 entries, more than 1000, at centers"),
        (changed(name="a" * 5000), "a text of 5000 letters at name"),
        (changed(name="a" * MOST_CHARACTERS), f"at most {MOST_CHARACTERS} are read"),
        (changed(rounds=10**30), r"whole number beyond 2\^53 at rounds"),
        (changed(rounds=float("nan")), "nan, which is not finite, at rounds"),
        (changed(rounds=float("inf")), "inf, which is not finite"),
        ("[" * 30_000, "RecursionError|JSONDecodeError"),
        ("[" * 20 + "]" * 20, "more than 12 deep"),
        ("{", "JSONDecodeError"),
        ("[]", "could not be read"),
        ("7", "could not be read"),
    ],
)
def test_what_no_server_sends_is_refused(text, said, monkeypatch):
    monkeypatch.setenv("SECRET", "of the hospital")
    with pytest.raises(ConfigError, match=said) as refused:
        step_from_json(text)
    assert "of the hospital" not in str(refused.value)


def test_a_step_that_was_sent_is_the_step_that_arrives():
    assert step_to_json(step_from_json(STEP)) == STEP
    assert plain_json(STEP, "A step") == json.loads(STEP)
