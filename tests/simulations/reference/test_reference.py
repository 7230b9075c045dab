"""The committed pages are what code and schema say, and nothing in the code is left without a meaning."""

from __future__ import annotations

import pytest

from simulations.reference import PAGES, write_pages
from simulations.reference.events import AUDIT, MEANING, audit_page, ledger_events
from simulations.reference.markdown import table
from simulations.reference.messages import CODES, given_codes
from simulations.reference.source import PACKAGES, ROOT, fields, first_sentence, modules


@pytest.mark.parametrize("page", PAGES)
def test_the_committed_page_is_the_generated_one(page):
    assert (ROOT / "docs" / page).read_text() == PAGES[page](), f"docs/{page}: run python -m simulations docs"


def test_only_what_changed_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("simulations.reference.PAGES", {"a/b.md": lambda: "new\n", "c.md": lambda: "same\n"})
    (tmp_path / "c.md").write_text("same\n")
    assert write_pages(tmp_path) == [tmp_path / "a/b.md"]
    assert write_pages(tmp_path) == []


def test_every_event_of_the_ledger_has_a_meaning():
    assert set(ledger_events()) == set(MEANING)


def test_fields_of_an_event_are_found_through_names_and_functions():
    assert ledger_events()["center_joined"][0] == ["step", "round", "center", "counts", "came_back"]
    assert "environment" in ledger_events()["run_started"][0]


def test_every_field_of_the_audit_record_has_a_meaning():
    page = audit_page()
    assert "no meaning" not in page
    assert page.count("| the order |") + page.count("| the reply |") == len(AUDIT)


def test_every_code_has_a_meaning_and_every_meaning_a_code():
    text = "".join(
        path.read_text() for package in PACKAGES for path in modules(package) if "reference" not in path.parts
    )
    assert given_codes() <= set(CODES)
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_a_field_has_its_type_default_and_comment():
    found = {field.name: field for field in fields(ROOT / "common/protocol/messages.py", "Reply")}
    assert found["code"][1:3] == ("str", "OK")
    assert found["round"].comment.startswith("of the order")


def test_every_module_says_what_it_holds():
    silent = [path for package in PACKAGES for path in modules(package) if not first_sentence(path)]
    assert silent == []


def test_a_bar_in_a_cell_does_not_end_it():
    assert table(["a"], [["x | y\nz"]]) == "| a |\n| --- |\n| x \\| y z |\n"
