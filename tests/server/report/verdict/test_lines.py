"""The verdict stands before everything else on the page, and is no better than the run."""

from __future__ import annotations

import pytest

from common.metrics import Estimate
from server.report.report import Comparison, write_report
from server.report.verdict.lines import verdict
from server.report.verdict.rules import bad_news
from tests.server.report.conftest import run_events
from tests.server.report.verdict.test_rules import evidence_of, last_row


def judged(events):
    evidence = evidence_of(events)
    return verdict(evidence, bad_news(evidence))


def test_one_line_for_each_task_with_its_score_and_cases():
    lines = {line["name"]: line for line in judged(run_events())["tasks"]}
    assert lines["Relapse"]["score"] == "C-index 0.664" and lines["Relapse"]["cases"] == "25 test cases"
    assert list(lines) == ["Chest", "Relapse", "Tumour CT", "Tumour CT + PET", "HMR"]
    assert {lines[name]["tone"] for name in ("Tumour CT", "HMR")} == {"mixed"} and lines["Chest"]["tone"] == "good"


@pytest.mark.parametrize(
    ("worse", "headline"),
    [
        ([], "Read the scores of the five tasks with what is said below."),
        (["relapse"], "One task of five came out with a score not to rely on."),
        (["relapse", "chest"], "Two tasks of five came out with a score not to rely on."),
    ],
)
def test_the_headline_counts_what_holds(worse, headline):
    events = run_events()
    for task in worse:
        last_row(events, task).update(value=0.4)
    assert judged(events)["headline"] == headline


def test_a_drift_goes_before_everything():
    events = run_events()
    events[-1]["changed_bits"]["relapse"] = 3
    found = judged(events)
    assert found["headline"].startswith("Do not use these numbers")
    assert found["whole"] == ["Something drifted: 3 bits of earlier outputs changed."]


def test_a_run_without_a_finished_step_is_not_judged():
    assert judged(run_events()[:1])["headline"] == "No step has been finished, so there is nothing to judge yet."


def test_the_page_opens_with_it(tmp_path):
    worse = Comparison("relapse", "c_index", "federated", "federated Newton", Estimate(-0.2, -0.3, -0.1, 25))
    page = write_report(tmp_path / "r.html", run_events(), comparisons=[worse]).read_text()
    said = page.index("Federated Newton is better than federated")
    assert page.index('id="verdict"') < said < page.index('class="tiles"') < page.index('id="matrix"')
    assert page.index('class="headline"') < page.index('class="lead"')
