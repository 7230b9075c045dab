"""A segmentation's score stands beside what a perfect mask on the training grid reaches, and distances in mm."""

from __future__ import annotations

from server.report import tables
from server.report.ceilings import ceiling_notes


def rows(step, values, center="pooled"):
    known = {"step": step, "task": "tumour_ct", "mode": "CT", "center": center}
    return [known | {"metric": metric, "value": value} for metric, value in values.items()]


def test_the_last_pooled_score_is_said_with_its_ceiling_and_the_median_distances():
    values = {"dsc_agg": 0.61, "dsc_agg_ceiling": 0.9, "hd95_median_from_GTVp": 4.0, "hd95_median_to_GTVp": 5.0}
    values |= {"hd95_median_from_GTVn": 100.0, "hd95_median_to_GTVn": None, "hd95_median_from_X": None}
    first = rows("start", values | {"dsc_agg": 0.1})
    [note] = ceiling_notes([*first, *rows("tumour_ct", values), *rows("tumour_ct", {"dsc_agg": 0.2}, "CHUM")])
    assert "aggregated Dice 0.610" in note and "would reach 0.900 there" in note and "Dice 0.100" not in note
    assert note.endswith("GTVp between 4 and 5 mm, GTVn 100 mm or more.")


def test_nothing_is_said_of_scores_on_the_training_grid():
    assert ceiling_notes(rows("tumour_ct", {"dsc_agg": 0.6})) == []


def test_the_ceiling_is_a_column_of_its_own_and_no_center_is_its_worst():
    values = {"dsc_agg": 0.61, "dsc_agg_ceiling": 0.9}
    every = [*rows("tumour_ct", values), *rows("tumour_ct", values | {"dsc_agg_ceiling": 0.8}, "A")]
    every = [row | {"n": 7} for row in [*every, *rows("tumour_ct", values, "B")]]
    arm = tables.Arm("federated", every, {"tumour_ct": "dsc_agg"})
    table = tables.centers(arm)
    assert [c["metric"] for c in table["columns"]] == [
        "aggregated Dice",
        "aggregated Dice of a perfect mask on the training grid",
    ]
    assert [row["cells"][1]["text"] for row in table["rows"]] == ["0.800", "0.900", "0.900"]
    assert not any(row["cells"][1]["worst"] for row in table["rows"])
    without = tables.Arm("local", [r for r in every if r["metric"] == "dsc_agg"], arm.metrics)
    both = tables.arms([arm, without])
    assert both is not None and [row["cells"][1]["text"] for row in both["rows"]] == ["0.900", "—"]
    assert len(tables.centers(without)["columns"]) == 1
