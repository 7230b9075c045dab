"""A statement's epsilons are the published ones, and a plan says which round would be refused."""

import re

import pytest

from client.budget.figure import draw
from client.budget.statement import statement_of
from client.policy.policy import Ceiling
from client.privacy.spending import Account, Entry, Unnoised, is_within
from common.errors import ConfigError
from common.privacy.accounting import Release

DELTA = 1 / 720
ROUND = Release(noise=1.405, rate=8 / 72, draws=9)  # fifty of them are epsilon 8 for 72 patients


def entries(run, step, rounds):
    return [Entry(run, step, number, f"{run}{step}{number}", (ROUND,)) for number in range(1, rounds + 1)]


@pytest.fixture(scope="module")
def account():
    left = [Unnoised(what, "a", "tumor", 1, "") for what in ("scores", "labels", "scores")]
    return Account((*entries("a", "tumor", 50), *entries("b", "tumor", 50)), tuple(left), 4)


@pytest.fixture(scope="module")
def told(account):
    plan = {"relapse": [ROUND] * 50, "toxicity": [ROUND] * 50}
    return statement_of(account, ceiling=Ceiling(13.0, DELTA), delta=DELTA, plan=plan)


def test_the_same_task_again_and_again_costs_what_was_published(told):
    """FEDERATION 3: 7.06, 11.1, 14.5 after one, two and three tasks by PRV; 12.4 after two by Renyi."""
    lines = [*told.lines, *told.planned]
    assert [(line.run, line.step, line.rounds, line.draws, line.noise) for line in lines] == [
        ("a", "tumor", 50, 450, 1.405), ("b", "tumor", 50, 450, 1.405),
        ("planned", "relapse", 50, 450, 1.405), ("planned", "toxicity", 50, 450, 1.405),
    ]  # fmt: skip
    assert [round(line.alone, 2) for line in lines] == [7.06] * 4
    assert [line.after for line in lines][:3] == pytest.approx([7.06, 11.1, 14.5], abs=0.05)
    assert told.spent == lines[1].after and told.spent_rdp == pytest.approx(12.4, abs=0.06)
    assert told.left == 13.0 - told.spent and (told.ceiling, told.delta) == (13.0, DELTA)
    assert (told.unnoised, told.replies_before, told.is_private, told.lost) == (
        {"labels": 1, "scores": 2},
        4,
        True,
        False,
    )


def test_the_first_round_that_would_be_refused_is_the_first_that_passes_the_ceiling(told, account):
    first, second = told.planned
    fits = first.refused_from - 1
    assert 0 < fits < 50 and second.refused_from == 1
    assert is_within([*account.releases, *[ROUND] * fits], Ceiling(13.0, DELTA))
    assert not is_within([*account.releases, *[ROUND] * (fits + 1)], Ceiling(13.0, DELTA))


def test_without_a_ceiling_nothing_is_refused_and_an_empty_account_has_spent_nothing():
    told = statement_of(Account(), ceiling=None, delta=DELTA, plan={"tumor": [ROUND] * 50})
    assert (told.spent, told.spent_rdp, told.left, told.lines) == (0.0, 0.0, None, ())
    assert told.planned[0].refused_from == 0 and told.planned[0].after == told.planned[0].alone


def test_the_figure_shows_every_step_and_the_ceiling_and_is_the_same_twice(told, tmp_path):
    draw(told, tmp_path / "one.svg", title="CHUP")
    draw(told, tmp_path / "two.svg", title="CHUP")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    shown = re.findall(r"<text[^>]*>([^<]+)</text>", text)
    shown = {text.strip() for text in shown}
    assert {f"{line.after:.2f}" for line in (*told.lines, *told.planned)} <= shown
    assert {"ceiling 13", "relapse", "toxicity", "CHUP", "spent", "planned", "planned, and refused"} <= shown
    assert f"(planned, refused from round {told.planned[0].refused_from})" in shown
    draw(told, tmp_path / "one.png", title="CHUP")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"let its name end in \.png or \.svg"):
        draw(told, tmp_path / "one.pdf", title="CHUP")
