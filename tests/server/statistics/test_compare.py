"""Centers side by side: distances by hand, chance as scipy has it, and files that are none."""

import json

import numpy as np
import pytest
from scipy import stats

from common.data.quantities import QUANTITIES
from common.errors import ConfigError
from server.__main__ import main
from server.statistics.compare import differences, distance, read_told


def wrote(folder, center, histograms, cases=100, by_scanner=None):
    path = folder / f"{center}.json"
    said = {"format": 1, "center": center, "minimum": 5, "cases": cases, "unreadable": 0, "merged": False}
    path.write_text(json.dumps({**said, "histograms": histograms, "by_scanner": by_scanner or {}}))
    return path


def ages(*counts):
    return [*counts, *[0] * (len(QUANTITIES["age"].bins) - len(counts))]


def test_distances_are_those_by_hand():
    a, b = np.array(ages(10, 20, 10), float), np.array(ages(0, 20, 20), float)
    apart, p = distance("age", a, b)
    assert apart == pytest.approx(0.25)
    assert p == pytest.approx(stats.kstwobign.sf(0.25 * np.sqrt(20)))
    apart, p = distance("gender", np.array([30.0, 10]), np.array([10.0, 30]))
    assert apart == pytest.approx(0.5)
    assert p == pytest.approx(stats.chi2.sf(20, 1)), "80 patients: the sum over cells of (10 off 20)^2 / 20 is 20"
    assert distance("gender", np.array([7.0, 0]), np.array([9.0, 0])) == (0.0, 1.0)


def test_alike_centers_do_not_differ_and_shifted_ones_do(tmp_path):
    same = {"age": ages(5, 10, 30, 30, 15, 10), "gender": [20, 80]}
    files = [wrote(tmp_path, name, same) for name in ("A", "B")]
    files.append(wrote(tmp_path, "C", {"age": ages(0, 0, 5, 10, 25, 60), "gender": [20, 80]}))
    found = differences(read_told(files))
    assert len(found) == 6
    assert {(one.quantity, one.centers) for one in found if one.is_told} == {("age", ("A", "C")), ("age", ("B", "C"))}
    assert [one.adjusted for one in found] == sorted(one.adjusted for one in found)
    smallest = min(one.p for one in found)
    assert found[0].adjusted == pytest.approx(6 * smallest), "Holm: the least likely of six counts sixfold"


def test_the_page_and_the_lines_say_who_differs(tmp_path, capsys):
    a = wrote(tmp_path, "A", {"age": ages(60, 30, 10)}, by_scanner={"ge": {"CT_slice_mm": [0] * 11 + [9]}})
    b = wrote(tmp_path, "B", {"age": ages(10, 30, 60), "gender": [50, 50]})
    assert main(["statistics", str(a), str(b), "--html", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "age: A (most in under 30) and B (most in 40 to 50) lie 0.50 apart" in said
    assert "1 of 1 comparisons differ" in said
    page = (tmp_path / "page.html").read_text()
    assert "A (most in under 30)" in page and "<td>A ge</td><td>9</td>" in page and "not told by A" in page


def test_files_that_are_none_are_listed_together(tmp_path):
    good, deep = wrote(tmp_path, "A", {"age": ages(10)}), tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    bad = [
        wrote(tmp_path, "B", {"age": [1, 2]}),
        wrote(tmp_path, "C", {"age": ages(-5, 10)}),
        wrote(tmp_path, "D", {"age": ages(200)}),
        wrote(tmp_path, "E", {"income": [1]}),
        wrote(tmp_path, "<F>", {}),
        wrote(tmp_path, "G", {}, by_scanner={"<b>\nge": {}}),
        wrote(tmp_path, "H", {"two\nlines": [1]}),
        deep,
        tmp_path / "absent.json",
    ]
    with pytest.raises(ConfigError) as error:
        read_told([good, *bad])
    assert len(str(error.value).splitlines()) == len(bad)
    with pytest.raises(ConfigError, match="a second file of A"):
        read_told([good, good])
