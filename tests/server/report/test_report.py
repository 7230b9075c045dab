"""report.html: complete, self-contained, escaped, and honest about what is missing."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import pytest

from common.errors import LedgerError
from common.metrics import Estimate
from server.report import story
from server.report.reading.record import read_run
from server.report.report import Comparison, Overlay, comparison_of, write_report
from server.report.results import results
from server.report.tables import verdict
from server.report.words import plural

PNG = b"\x89PNG\r\n\x1a\nnot really"


class Page(HTMLParser):
    """Collects what the tests ask about: text, references, tags, and the cells of every table row."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str):
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words.append(data)
        if ("td" in self.open or "th" in self.open) and data.strip():
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()


@pytest.fixture
def render(tmp_path):
    def write(source, **options) -> str:
        return write_report(tmp_path / "out" / "report.html", source, **options).read_text(encoding="utf-8")

    return write


def test_the_page_loads_nothing_from_anywhere(render, events):
    html = render(events, overlays=[Overlay("Case", "CT", PNG)])
    page = Page(html)
    assert page.open == []
    assert all(ref.startswith(("#", "data:")) for ref in page.references)
    assert "http" not in html and "url(" not in html and "@import" not in html
    assert not {"script", "iframe", "object", "embed"} & set(page.tags)
    assert all(f'id="{ref[1:]}"' in html for ref in page.references if ref.startswith("#"))


def test_the_same_events_give_the_same_bytes(render, events):
    assert render(events) == render(copy.deepcopy(events))


def test_the_heat_map_has_every_score_and_a_dash_before_a_task_is_learned(render, events):
    rows = Page(render(events)).rows
    assert ["Before training", "0.811", "—", "—", "—", "—"] in rows
    assert ["Tumour CT", "0.811", "0.664", "0.507", "—", "—"] in rows
    assert ["HMR", "0.811", "0.664", "0.507", "0.681", "0.655"] in rows
    assert ["Forgetting", "0", "0", "0", "0", "—"] in rows


def test_the_three_sentences_say_who_what_and_on_which_data(render, events):
    text = Page(render(events)).text
    assert (
        "Seven centers (CHUM, CHUP, CHUS, CHUV, MDA, HGJ, HMR) adapted one frozen CT-CLIP (mini, 1.87 million" in text
    )
    assert "C-index 0.664 on relapse" in text and "found 0 changed bits" in text
    assert "All data are synthetic (phantom): Phantom cohort" in text


def test_real_data_are_called_real(render, events):
    events[0]["data"] |= {"synthetic": False, "kind": "folder", "note": "sts7"}
    page = Page(render(events)).text
    assert "real data" in page and "The data are real (folder): sts7." in page and "synthetic" not in page


def test_the_worst_center_is_marked_and_missing_scores_say_why(render, events):
    rows = {row[0]: row for row in Page(render(events)).rows if len(row) == 6}
    assert rows["CHUP"] == ["CHUP", "—", "0.726 n = 3", "worst 0.420 n = 3", "0.600 n = 3", "—"]
    assert rows["HGJ"][2] == "— no comparable pair n = 3"
    centers = [row for row in Page(render(events)).rows if row[:1] == ["HMR"]]
    assert any("— suppressed: too few cases" in row for row in centers)


def test_intervals_are_printed_where_rows_carry_them(render, events):
    last = next(e for e in reversed(events) if e["kind"] == "step_finished")
    row = next(r for r in last["scores"] if r["task"] == "relapse" and r["center"] == "MDA")
    row |= {"low": 0.6104, "high": 0.8796}
    assert "0.753 0.610 to 0.880 n = 9" in [cell for row in Page(render(events)).rows for cell in row]


def test_warnings_name_refusals_failures_and_gaps(render, events):
    text = Page(render(events)).text
    assert "HGJ took no part in tumour CT + PET: no PET at this center." in text
    assert "CHUV gave no usable reply in round 2 of tumour CT (code 'data')." in text
    assert "Relapse: no score for HMR (suppressed: too few cases)." in text


def test_answers_that_were_stopped_outside_rounds_are_named(render, events):
    known = {"time": events[0]["time"], "step": "relapse"}
    why = {"action": "evaluate", "code": "impossible", "told": "cases is more than the 9 that there are"}
    stopped = {"kind": "reply_rejected", **known, "center": "MDA", **why}
    events[-1:-1] = [stopped, {"kind": "newton_lost", **known, "centers": {"HGJ": "stale"}}]
    text = Page(render(events)).text
    assert (
        "MDA, asked for test scores of relapse, gave an answer that was stopped, code 'impossible': cases is more than"
        in text
    )
    assert "The exact fit of relapse went on without HGJ (code 'stale')." in text


def test_a_drift_is_shown_as_one(render, events):
    events[-1] |= {"changed_bits": {"relapse": 12}, "base_after": "0000" * 16}
    text = Page(render(events)).text
    assert "Outputs of relapse changed in 12 bits when rebuilt" in text
    assert "the frozen model was changed" in text and "Frozen base changed" in text


def test_bytes_stand_beside_the_model_they_are_compared_with(render, events):
    page = Page(render(events))
    assert ["Relapse", "160 kB", "162 kB", "164 kB", "30", "9.8 MB", "1/46", "2.12 MB", "1/541"] in page.rows
    assert "would have sent 1.32 GB" in page.text  # 7.5 MB, both ways, 88 replies


def test_survival_shows_curves_numbers_at_risk_and_the_test(render, events):
    page = Page(render(events))
    assert "p = 0.020" in page.text
    assert "low 14 13 11 7 4 1" in page.text and "high 13 9 6 3 2 1" in page.text
    assert ["low", "14", "2", "0.83"] in page.rows and ["high", "13", "7", "0.25"] in page.rows


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"curves": {}}, "— No step of this run reported survival counts"),
        (
            {"curves": {"relapse": {"grid_days": [9], "at_risk": [[None], [3]], "events": [[0], [1]]}}},
            "suppressed cells",
        ),
    ],
)
def test_missing_survival_says_why(render, events, fields, reason):
    for event in events:
        if event["kind"] == "step_finished":
            event |= fields
    assert reason in Page(render(events)).text


def test_a_run_that_has_only_begun_renders_with_reasons(render, events):
    page = Page(render(events[:1]))
    for reason in ("No step has been finished", "No step was trained", "nothing has travelled yet", "No pictures"):
        assert f"— {reason}" in page.text or reason in page.text
    assert "no trained step yet" in page.text and "has not been verified" in page.text


def test_bytes_outside_the_rounds_are_shown_and_said_to_be_included(render, events):
    started = next(e for e in events if e["kind"] == "step_started" and e["step"] == "hmr")
    assert "did not count enrolment and tests" in Page(render(events)).text
    for event in events:
        if event["kind"] == "step_started":
            event["bytes"] = {}
    started["bytes"] = {"HMR": {"up": 1_500, "down": 20_000}}
    scored = {"kind": "scored", "step": "hmr", "bytes": {"HMR": {"up": 2_000_000, "down": 3_000_000}}}
    page = Page(render([*events, scored]))
    assert ["Asking the centers what they hold for a step", "1.5 kB", "20 kB", "21.5 kB"] in page.rows
    told = "scoring test cases, and the validation cases that calibrate a step"
    assert [told.capitalize(), "2 MB", "3 MB", "5 MB"] in page.rows
    assert (
        f"Included: asking the centers what they hold for a step; rounds of training and validation; {told}."
        in page.text
    )
    assert "did not count" not in page.text


def test_a_run_without_rounds_shows_what_travelled_all_the_same(render, events):
    sums = {"kind": "newton_round", "step": "hmr", "round": 0, "bytes": {"HMR": {"up": 1_000, "down": 1_000}}}
    page = Page(render([events[0], sums]))
    assert ["Sums that a step is solved from, or that later steps go on from", "1 kB", "1 kB", "2 kB"] in page.rows
    assert "All rounds together" not in page.text and "2 kB crossed" in page.text


def test_warnings_of_aggregation_rules_are_told_once_with_their_step(render, events):
    for event in events:
        if event["kind"] == "round_finished" and event["step"] in ("tumour_ct", "hmr"):
            share = 0.01 * event["round"]
            note = f"Part 'within' is averaged as plain factors; the mean missed {100 * share:.2g} % of the update."
            event["aggregation"] = {"within.missed": share, "beside.missed": 1e-8, "notes": [note]}
    rounds = [e["round"] for e in events if e["kind"] == "round_finished" and e["step"] == "tumour_ct"]
    told = story.warnings(read_run(events))
    first = "Part 'within' is averaged as plain factors; the mean missed 1 % of the update."
    last = len(rounds)
    assert [w for w in told if w.startswith("Aggregation of tumour CT")] == [
        f"Aggregation of tumour CT, round 1, and in {plural(len(rounds) - 1, 'later round')}: {first}",
        f"Aggregation of tumour CT missed up to {last} % of a round's update of part 'within' (round {last}).",
    ]
    assert sum("Aggregation of HMR" in w for w in told) == 2 and sum("Aggregation" in w for w in told) == 4
    assert f"missed up to {len(rounds)} %" in Page(render(events)).text


def test_an_exact_rule_and_one_round_are_told_as_such(events):
    [event] = [e for e in events if e["kind"] == "round_finished" and (e["step"], e["round"]) == ("hmr", 2)]
    event["aggregation"] = {"side.missed": 2e-8, "notes": ["The rule had only 3 updates."]}
    told = [w for w in story.warnings(read_run(events)) if "Aggregation" in w]
    assert told == ["Aggregation of HMR, round 2: The rule had only 3 updates."]


def test_every_prefix_of_the_ledger_renders(render, events):
    for length in range(1, len(events) + 1, 3):
        assert Page(render(events[:length])).open == []


def test_missing_optional_fields_do_not_stop_the_page(render, events):
    bare = [
        {
            k: v
            for k, v in e.items()
            if k not in ("curves", "seconds", "failed", "counts", "released_bytes", "adapter_bytes")
        }
        for e in events
    ]
    bare[0] = {k: v for k, v in bare[0].items() if k not in ("environment", "data", "backbone")}
    page = Page(render(bare))
    assert "The run does not say whether its data are real" in page.text and page.open == []


def renamed(value, names: dict[str, str]):
    """The same events with some strings, keys included, replaced."""
    if isinstance(value, dict):
        return {names.get(k, k): renamed(v, names) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v, names) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_names_are_escaped_everywhere(render, events):
    evil = '<script>alert("x")</script>'
    html = render(
        renamed(events, {"CHUM": evil, "quickstart": evil, "no PET at this center": evil}),
        overlays=[Overlay(evil, evil, PNG)],
        comparisons=[Comparison(evil, "dice", evil, evil, Estimate(0.1, 0.0, 0.2, 3), evil)],
        notes=[evil],
        command=evil,
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 20


def test_comparisons_are_put_into_words():
    def say(low: float, high: float, metric: str = "dice") -> str:
        return verdict(Comparison("t", metric, "federated", "local", Estimate((low + high) / 2, low, high, 20)))

    assert say(0.01, 0.05) == "Federated is better: the interval excludes 0."
    assert say(-0.05, -0.01) == "Federated is worse: the interval excludes 0."
    assert say(-0.05, -0.01, "hd95") == "Federated is better: the interval excludes 0."
    assert say(0.01, 0.05, "hd95") == "Federated is worse: the interval excludes 0."
    assert say(-0.2, 0.2, "hd95") == say(-0.2, 0.2, "lesion_f1") == "Interval includes 0: no difference shown."
    assert say(-0.005, 0.02).endswith("A loss beyond the margin of 0.01 is ruled out.")
    assert say(-0.02, 0.02).endswith("A loss beyond the margin of 0.01 is not ruled out.")
    assert say(-0.015, 0.02, "c_index").endswith("A loss beyond the margin of 0.02 is ruled out.")
    assert say(-0.2, 0.2, "auroc") == "Interval includes 0: no difference shown."


def test_comparisons_are_drawn_and_a_missing_one_gives_its_reason(render, events):
    items = [
        Comparison("relapse", "c_index", "CT + text", "CT", Estimate(0.041, -0.012, 0.093, 25)),
        Comparison("relapse", "c_index", "federated", "local", Estimate(None, n=25), "no comparable pair"),
    ]
    items.append(Comparison("tumour_ct", "hd95", "federated", "local", Estimate(-2.5, -4.0, -0.5, 25)))
    page = Page(render(events, comparisons=items))
    assert "HD95 (mm), lower is better" in page.text and "Federated is better: the interval excludes 0." in page.text
    assert any(row[:2] == ["CT + text minus CT", "+0.041 −0.012 to +0.093"] for row in page.rows)
    assert "Not computed: no comparable pair." in page.text
    assert "No paired comparison" not in page.text


def test_a_comparison_comes_back_from_its_row_in_results():
    found = Comparison("t", "dice", "federated", "local", Estimate(0.1, 0.0, 0.2, 12), "a note")
    assert comparison_of(found.row()) == found and found.row()["better"] == "higher"
    assert Comparison("t", "hd95", "federated", "local", Estimate(-1.0)).row()["better"] == "lower"
    assert comparison_of({**found.row(), "difference": None, "low": None, "high": None, "n": None}).difference.n == 0


def test_arms_stand_beside_the_run(render, events):
    other = copy.deepcopy(events)
    other[0]["arm"] = "centralized"
    source = {"federated": events, "centralized": results(other, kind="centralized")}
    rows = Page(render(source)).rows
    assert ["centralized", "0.811", "0.664 worst 0.591 (CHUS)"] in [row[:3] for row in rows]


def test_folds_are_averaged_in_scores_and_summed_in_survival_counts(render, events):
    second = copy.deepcopy(events)
    for event in second:
        for row in event.get("scores", []):
            row["value"] = None if row["value"] is None else row["value"] + 0.02
    page = Page(render({"federated": [events, second]}))
    assert ["HMR", "0.821", "0.674", "0.517", "0.691", "0.665"] in page.rows
    assert ["low", "28", "4", "0.83"] in page.rows and "averaged over 2 folds" in page.text


def test_pictures_travel_inside_the_page(render, events):
    html = render(events, overlays=[Overlay("Case 1", "CT and PET", PNG)])
    assert "data:image/png;base64,iVBORw0KGgpub3QgcmVhbGx5" in html and "Case 1" in html


def test_colours_follow_the_reader_light_or_dark(render, events):
    html = render(events)
    assert "prefers-color-scheme: dark" in html and re.search(r'name="viewport"', html)


def test_a_report_needs_at_least_one_run_of_events(render, events):
    with pytest.raises(LedgerError, match="at least one arm"):
        render({"federated": results(events)})


def test_calibration_shows_a_disc_per_bin_and_the_mean_distance(render, events):
    html = render(events)
    page = Page(html)
    assert html.count('class="disc"') == 6 and "relapse within 30 months" in page.text
    away = abs(0.3) + abs(1.4 - 2.1) + abs(1.5 - 1.0) + abs(1.8 - 2.4) + abs(1.3 - 1.2) + abs(0.85 - 1.15)
    assert f"Mean distance from the line (ECE) {away / 27:.3f}" in page.text


def test_a_forest_has_a_row_per_center_and_the_pooled_one_last(render, events):
    for row in (row for event in events for row in event.get("scores", []) if row["value"] is not None):
        row.update({"low": row["value"] - 0.11, "high": row["value"] + 0.08} if row["task"] == "relapse" else {})
    html = render(events)
    [forest] = [svg for svg in re.findall(r'<svg class="chart forest".*?</svg>', html, re.S) if "C-index" in svg]
    names = re.findall(r'text-anchor="end" class="[^"]*">([^<]+)<', forest)
    assert names == ["CHUM", "CHUP", "CHUS", "CHUV", "MDA", "HGJ", "HMR", "all, pooled"]
    assert forest.count('class="whisker"') == 6  # HGJ has no comparable pair, HMR is suppressed
    assert "— (3 cases)" in forest and "— suppressed" in forest and "rotate(45" in forest


def test_a_run_without_calibration_has_no_such_section(render, events):
    for event in events:
        for counts in event.get("curves", {}).values():
            counts.pop("reliability")
    html = render(events)
    page = Page(html)
    assert "Are the probabilities right?" not in page.text and "Log-rank test" in page.text


def test_a_task_that_counts_no_survival_may_be_calibrated(render, events):
    bins = {"cases": [4.0] + [0.0] * 9, "predicted": [0.2] + [0.0] * 9, "observed": [1.0] + [0.0] * 9}
    events[-2]["curves"]["hpv"] = {"reliability": bins, "temperature": 1.73}
    html = render(events)
    page = Page(html)
    assert "temperature of 1.73" in page.text and html.count("Log-rank test") == 1
