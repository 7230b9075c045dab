"""The audit's page: every attack at every level, as tables, figures and JSON, and a command that names it."""

import json
import math

import pytest

from simulations.__main__ import main, make_parser
from simulations.leakage import page
from simulations.leakage.page import Sizes, run_audit

SMALL = Sizes(canaries=64, draws=10, models=6, patients=20, crops=1, steps=3, exposed=1, rounds=1,
              levels=(math.inf, 8.0), claims=(8.0,))  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    said = []
    return folder, run_audit(folder, seed=3, sizes=SMALL, say=said.append, command="audit again"), said


@pytest.mark.slow
def test_each_attack_is_a_table_and_all_numbers_are_json(done):
    folder, found, said = done
    assert [table.title.partition(":")[0] for table in found.tables] == [
        "Canaries", "Neighboring cohorts", "Membership", "Inversion", "Exposure",
    ]  # fmt: skip
    figures = json.loads((folder / "study.json").read_text())["figures"]
    assert [row["code"] for row in figures["canaries"]] == figures["codes"]
    assert figures["neighbors"] == {"as shipped": False, "secret divisor": True}
    for attack in ("membership", "inversion", "exposure"):
        assert [(row["epsilon"], row["is_sum"]) for row in figures[attack]] == [
            (None, False), (None, True), (8.0, False),
        ]  # fmt: skip
    assert figures["membership"][0]["caught"] == {"0.001": None, "0.01": None}  # 6 x 10 others: not measurable
    assert len(said) == 4


@pytest.mark.slow
def test_what_cannot_be_measured_is_said_in_words(done):
    (table,) = [table for table in done[1].tables if table.title.startswith("Membership")]
    assert [row[0] for row in table.rows] == ["no privacy", "secure sum", "epsilon 8"]
    assert table.rows[0][2] == "not measurable"


def test_the_full_page_has_no_privacy_a_secure_sum_and_epsilon_20_8_and_3():
    assert tuple(Sizes().levels) == (math.inf, 20.0, 8.0, 3.0) and tuple(Sizes().claims) == (8.0, 3.0)
    assert page.level_name(math.inf, is_sum=True) == "secure sum"


@pytest.mark.slow
def test_the_page_is_one_file_with_its_figure_and_says_that_nothing_was_private(done):
    html = (done[0] / "report.html").read_text()
    assert "data:image/png;base64," in html and "not private" in html and "audit again" in html


def test_the_command_runs_it(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(page, "run_audit", lambda out, **options: asked.append((out, options)) or page.Page("", ""))
    assert main(["audit", "--out", str(tmp_path), "--seed", "4"]) == 0
    assert asked == [(tmp_path, {"seed": 4, "command": "python -m simulations audit --seed 4"})]
    assert "study.json" in capsys.readouterr().out and make_parser().parse_args(["audit"]).seed == 0
