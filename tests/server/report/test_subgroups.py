"""Scores by subgroup as a table: intervals, and plain words where there is too little to say."""

from server.report.subgroups import LITTLE, WITHHELD, level_name, subgroup_tables


def row(level, value, n, **others):
    known = {"task": "tumour_ct", "mode": "CT", "metric": "dice", "center": "pooled", "subgroup": level}
    return {**known, "value": value, "n": n, **others}


def test_a_level_has_a_value_with_an_interval_or_says_that_it_is_too_few():
    rows = [
        row("hpv=positive", 0.5, 24, low=0.4, high=0.6),
        row("hpv=negative", 0.7, 6, low=0.1, high=0.9),
        row("t_stage=t0", None, None),
        row("hpv=positive", 0.9, 9, center="CHUM"),
    ]
    [table] = subgroup_tables(rows)
    assert [column["metric"] for column in table["columns"]] == ["Dice"]
    cells = {line["name"]: line["cells"][0] for line in table["rows"]}
    assert cells["HPV: positive"] == {"text": "0.500", "interval": "0.400 to 0.600", "n": "n = 24"}
    assert cells["HPV: negative"]["interval"] == LITTLE, "six patients"
    assert cells["T stage: t0"] == {"text": LITTLE, "interval": "", "n": WITHHELD}


def test_arms_stand_side_by_side_and_folds_become_a_mean_without_an_interval():
    rows = [row("sex=male", v, 10, low=0.1, high=0.9, arm="federated", fold=f) for f, v in enumerate((0.4, 0.6))]
    [table] = subgroup_tables([*rows, row("sex=male", 0.7, 20, low=0.6, high=0.8, arm="local")])
    assert [column["arm"] for column in table["columns"]] == ["federated", "local"]
    assert table["rows"][0]["cells"][0] == {"text": "0.500", "interval": "", "n": "n = 20"}
    assert level_name("age=under 65") == "Age: under 65"
