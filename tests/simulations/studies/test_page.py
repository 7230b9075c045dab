"""A study's page: the same figures in three forms, nothing fetched from a network."""

import json

import pytest

from common.config.load import compose_run
from common.errors import UnknownName
from simulations.studies.page import Page, Picture, Table, markdown, write_page
from simulations.studies.run import run_study

PAGE = Page(
    "Rules <compared>",
    "Seven synthetic centers.",
    tables=[Table("Scores", ["rule", "Dice"], [["mean", 0.5], ["a|b", -0.25], ["none", None]], note="three seeds")],
    pictures=[Picture("A line", "drawn", svg="<svg></svg>"), Picture("A dot", "shot", png=b"png")],
    notes=["synthetic"],
    command="python -m simulations compare study=x",
)


def test_floats_have_three_digits_and_a_real_minus_and_bars_are_escaped():
    text = markdown(PAGE)
    assert "| mean | 0.500 |" in text and "| a\\|b | −0.250 |" in text and "| none | — |" in text


def test_the_page_is_written_three_times_with_the_same_bytes(tmp_path):
    first = write_page(tmp_path, PAGE).read_bytes()
    assert write_page(tmp_path, PAGE).read_bytes() == first
    assert json.loads((tmp_path / "study.json").read_text())["tables"][0]["rows"][1] == ["a|b", -0.25]
    assert (tmp_path / "tables.md").read_text() == markdown(PAGE)


def test_the_html_is_self_contained_and_escaped(tmp_path):
    html = write_page(tmp_path, PAGE).read_text()
    assert "Rules &lt;compared&gt;" in html and "<svg></svg>" in html and "data:image/png;base64,cG5n" in html
    assert "http://" not in html and "https://" not in html


def test_an_unknown_study_is_refused_with_the_options(tmp_path):
    run = compose_run(["curriculum=smoke"])
    run.study = type("Odd", (), {"kind": "odd"})()
    with pytest.raises(UnknownName, match="odd"):
        run_study(run, [], folder=tmp_path)
