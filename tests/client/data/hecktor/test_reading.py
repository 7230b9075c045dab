"""Tables as they are written: separators, titles, encodings, ragged rows, and words that are no missing values."""

from __future__ import annotations

import pytest

from client.commands.prepare import copy_table
from client.data.folders import files_below
from client.data.hecktor.mapping import load_mapping
from client.data.hecktor.reading import read_rows
from client.data.hecktor.tables import read_table, read_tables
from common.errors import DataError
from common.text_yaml import load_text

HEADER = ["PatientID", "Gender", "Age", "Tobacco Consumption", "Relapse", "RFS"]
ROWS = [["CHUM-001", "M", "61", "0", "1", "400"], ["CHUM-002", "F", "50", "1", "0", "900"]]


def text(separator=",", end="\n", rows=ROWS):
    return end.join(separator.join(row) for row in [HEADER, *rows]) + end


FORMS = {
    "commas": (text(), 0),
    "semicolons": (text(";"), 1),
    "tabs": (text("\t"), 1),
    "bars": (text("|"), 1),
    "Windows": (text(end="\r\n"), 0),
    "old Macintosh": (text(end="\r"), 0),
    "a byte order mark": ("\ufeff" + text(), 0),
    "a title": ("Export of 5 March\n" + text(), 1),
    "two titles and a blank line": ("Registry\n\nMarch\n" + text(), 1),
    "empty columns behind": (text().replace("\n", ",,\n"), 0),
    "blank lines between": (text(end="\n\n"), 0),
    "everything quoted": ("\n".join(",".join(f'"{c}"' for c in row) for row in [HEADER, *ROWS]), 0),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_same_table_in_every_form_is_the_same_table_and_what_is_unusual_is_told(tmp_path, form, encoding):
    written, notes = FORMS[form]
    (tmp_path / "t.csv").write_bytes(written.lstrip("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    table = read_rows(tmp_path / "t.csv")
    assert (table.header, table.rows, len(table.notes)) == (HEADER, ROWS, notes)
    assert read_tables(tmp_path).fields["CHUM-002"] == {"gender": "female", "age": 50.0, "tobacco": 1.0}


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.tsv", "t.Tab"])
def test_a_suffix_of_any_case_is_read(tmp_path, name):
    (tmp_path / name).write_text(text())
    assert read_tables(tmp_path).read == [name]


@pytest.mark.parametrize("name", ["t.xlsx", "T.XLS", "t.ods", "t.sav", "t.dta"])
def test_a_spreadsheet_is_not_read_and_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    [sentence] = read_tables(tmp_path).odd
    assert name in sentence and "spreadsheet" in sentence


def test_a_row_with_other_cells_than_the_header_is_left_out_and_counted(tmp_path):
    (tmp_path / "t.csv").write_text(text() + "CHUM-003,M,61,0,1\nCHUM-004,M,6,1,0,1,400\n")
    rows = read_tables(tmp_path)
    assert set(rows.fields) == {"CHUM-001", "CHUM-002"} and any(
        "2 rows of 't.csv' have another number" in s for s in rows.odd
    )


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a\0b,c\n", b"\xff\xfe\x00PatientID", bytes(range(128, 256))])
def test_what_is_no_table_of_text_is_a_problem(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    assert len(read_tables(tmp_path).problems) == 1


def test_a_table_without_rows_or_without_a_mapping_is_told(tmp_path):
    (tmp_path / "empty.csv").write_text(text(rows=[]))
    (tmp_path / "other.csv").write_text("Nurse,Shift\nA,1\n")
    odd = read_tables(tmp_path).odd
    assert any("'empty.csv' has a header but no row" in s for s in odd) and any(
        "'other.csv' is not read" in s for s in odd
    )


def test_a_bad_cell_is_not_recorded_and_counted_and_a_bad_outcome_costs_that_patient(tmp_path, caplog):
    (tmp_path / "t.csv").write_text(text().replace("61", "999"))
    rows = read_tables(tmp_path)
    assert rows.problems == [] and "age" not in rows.fields["CHUM-001"] and rows.fields["CHUM-002"]["age"] == 50
    assert rows.odd[0].startswith("1 values of 'age' in 't.csv' cannot be used and count as not recorded")
    (tmp_path / "t.csv").write_text(text().replace("400", "soon"))
    rows = read_tables(tmp_path)
    assert rows.problems == [] and "1 values of 'rfs'" in rows.odd[0]
    assert rows.outcome("CHUM-001", "rfs") is None and rows.outcome("CHUM-002", "rfs") is not None
    assert "CHUM-001 rfs cannot be read: 'soon'" in caplog.text and "CHUM" not in rows.odd[0]


def many(tmp_path, spoil: dict[int, list[str]], *, count: int = 20, more: tuple[list[str], ...] = ()):
    """Twenty patients in one table, the rows of some spoiled."""
    rows = [[f"CHUM-{i:03d}", "M", "60", "0", str(i % 2), str(300 + i)] for i in range(1, count + 1)]
    for number, row in spoil.items():
        rows[number - 1] = [new or old for new, old in zip(row, rows[number - 1], strict=True)]
    (tmp_path / "t.csv").write_text(text(rows=[*rows, *more]))
    return read_tables(tmp_path)


BAD_OUTCOMES = {
    "a time in words": ["", "", "", "", "", "soon"],
    "a time below zero": ["", "", "", "", "", "-5"],
    "a status that is none": ["", "", "", "", "perhaps", ""],
    "a status of another code": ["", "", "", "", "2", ""],
    "an ID that is none": ["Doe", "", "", "", "", ""],
}


@pytest.mark.parametrize("kind", BAD_OUTCOMES)
@pytest.mark.parametrize(("spoiled", "stops"), [((1,), False), ((1, 4), False), ((1, 4, 7), True)])
def test_bad_outcomes_and_ids_cost_those_patients_until_they_are_many(tmp_path, caplog, kind, spoiled, stops):
    rows = many(tmp_path, dict.fromkeys(spoiled, BAD_OUTCOMES[kind]))
    assert bool(rows.problems) is stops
    assert any(f"{len(spoiled)} " in sentence for sentence in (rows.problems or rows.odd))
    kept = {p for p in (f"CHUM-{i:03d}" for i in range(1, 21)) if rows.outcome(p, "rfs")}
    of_all = stops and kind != "an ID that is none"  # nobody's outcome is used then, and only steps that need it stop
    assert kept == (set() if of_all else {f"CHUM-{i:03d}" for i in range(1, 21) if i not in spoiled})
    assert rows.untold.get("rfs", []) == (rows.problems if of_all else [])
    assert not any("CHUM-0" in sentence.replace("CHUM-001", "") for sentence in rows.problems + rows.odd)
    assert all(f"{i}" in caplog.text for i in spoiled)  # named on site


def test_two_rows_of_one_patient_cost_that_patient_both(tmp_path):
    rows = many(tmp_path, {}, more=(["CHUM-003", "F", "60", "0", "1", "303"],))
    assert rows.problems == [] and "1 patients stand more than once" in rows.odd[0]
    assert "CHUM-003" not in rows.fields and rows.outcome("CHUM-003", "rfs") is None
    assert rows.outcome("CHUM-004", "rfs") == (304.0, 0)


@pytest.mark.parametrize("other", ["304,1", "999,0"])
def test_tables_that_contradict_each_other_cost_that_patient_the_outcome(tmp_path, other):
    days, event = other.split(",")
    (tmp_path / "u.csv").write_text(text(rows=[["CHUM-004", "M", "60", "0", event, days]]))
    rows = many(tmp_path, {})
    assert rows.problems == [] and rows.outcome("CHUM-004", "rfs") is None
    assert "than in an earlier table, so neither counts" in rows.odd[0] and rows.outcome("CHUM-005", "rfs")


@pytest.mark.parametrize("code", [("1", "2"), ("2", "1"), ("alive", "dead"), ("0", "2")])
def test_a_status_in_another_code_is_refused_never_taken_for_events(tmp_path, code):
    (tmp_path / "t.csv").write_text(text(rows=[[*r[:4], c, r[5]] for r, c in zip(ROWS, code, strict=True)]))
    assert "'relapse'" in read_tables(tmp_path).problems[0] and "values:" in read_tables(tmp_path).problems[0]


def test_a_status_that_a_mapping_gives_a_meaning_is_read_by_it(tmp_path):
    (tmp_path / "t.csv").write_text("ID,S,T\nCHUM-001,1,40\nCHUM-002,2,30\n")
    (tmp_path / "m.yaml").write_text(
        "patient: ID\noutcomes: {os: {event: {column: S, values: {1: 0, 2: 1}}, time: T}}\n"
    )
    rows = read_tables(tmp_path, mapping=tmp_path / "m.yaml")
    assert rows.events == {"CHUM-001": {"os": 0}, "CHUM-002": {"os": 1}}


@pytest.mark.parametrize("word", ["NA", "None", "null", "n/a", "unknown", "?", "nan"])
def test_words_for_nothing_known_are_not_recorded_and_counted_unless_they_mean_something(tmp_path, word):
    (tmp_path / "t.csv").write_text(text().replace(",0,1,400", f",{word},1,400"))
    rows = read_tables(tmp_path)
    assert "tobacco" not in rows.fields["CHUM-001"] and rows.problems == rows.odd == []
    assert any("1 cells of 'tobacco consumption'" in note for note in rows.notes)
    (tmp_path / "m.yaml").write_text(
        f"patient: PatientID\nvariables: {{tobacco: {{column: Tobacco Consumption, values: {{'{word}': 0}}}}}}\n"
    )
    assert read_tables(tmp_path, mapping=tmp_path / "m.yaml").fields["CHUM-001"]["tobacco"] == 0.0


@pytest.mark.parametrize("cell", ["6_1", "٦١", "61 years", "0x3d", "inf", "1e9", "--61", "61,5"])
def test_numbers_are_plain_numbers(tmp_path, cell):
    (tmp_path / "t.csv").write_text(text().replace("61", f'"{cell}"'))
    rows = read_tables(tmp_path)
    assert "age" not in rows.fields["CHUM-001"] and "1 values of 'age'" in rows.odd[0]


def test_rows_that_stand_twice_count_once_where_they_are_equal_and_not_at_all_where_not(tmp_path):
    (tmp_path / "t.csv").write_text(text(rows=[*ROWS, ROWS[0]]))
    rows = read_tables(tmp_path)
    assert rows.problems == [] and "1 rows of 't.csv' stand there twice" in rows.odd[0]
    (tmp_path / "t.csv").write_text(text(rows=[*ROWS, [*ROWS[0][:5], "401"]]))
    rows = read_tables(tmp_path)
    assert rows.problems == [] and "1 patients stand more than once" in rows.odd[0] and "CHUM-001" not in rows.fields


def test_a_column_that_stands_twice_is_not_read_or_stops(tmp_path):
    (tmp_path / "t.csv").write_text(text().replace("Gender", "Age"))
    rows = read_tables(tmp_path)
    assert "age" not in rows.fields["CHUM-001"] and "several columns called 'age'" in rows.odd[0]
    (tmp_path / "t.csv").write_text(text().replace("Gender", "RFS"))
    rows = read_tables(tmp_path)
    assert "several columns called 'rfs'" in rows.untold["rfs"][0] and rows.stopping == []
    assert not any(rows.days.values()) and rows.fields["CHUM-001"]  # the outcome's steps stop, no others
    (tmp_path / "t.csv").write_text(text().replace("Gender", "PatientID"))
    assert "several columns called 'patientid'" in read_tables(tmp_path).stopping[0]


OWN = "patient: ID\ncenter: Site\nvariables: {age: Age}\noutcomes: {os: {event: D, time: T, unit: months}}\n"


def own(tmp_path, lines):
    (tmp_path / "m.yaml").write_text(OWN)
    (tmp_path / "t.csv").write_text("ID,Site,Age,D,T\n" + "\n".join(lines) + "\n")
    return read_table(tmp_path / "t.csv", load_mapping(tmp_path / "m.yaml"))


@pytest.mark.parametrize("spelling", ["chum", "Ch-um", "CHUM.", "ch um"])
def test_spellings_of_one_center_are_joined_and_told(tmp_path, spelling):
    rows = own(tmp_path, ["1,CHUM,60,1,12", "2,CHUM,61,0,20", f"3,{spelling},62,0,30"])
    assert set(rows.centers.values()) == {"CHUM"} and any("were joined" in note for note in rows.notes)


@pytest.mark.parametrize("code", ["NA", "None", "nan", "NO", "01", "1e3", "true"])
def test_a_centers_code_is_what_was_typed(tmp_path, code):
    rows = own(tmp_path, [f"1,{code},60,1,12", "2,MI,61,0,20"])
    assert rows.centers == {f"{code}/1": code, "MI/2": "MI"} and rows.problems == []


def test_one_number_at_two_centers_is_two_patients(tmp_path):
    rows = own(tmp_path, ["P001,A,60,1,12", "P001,B,61,0,20", "P002,A,62,0,30"])
    assert rows.problems == [] and rows.centers == {"A/P001": "A", "B/P001": "B", "A/P002": "A"}
    assert own(tmp_path, ["CHUM-001,CHUM,60,1,12", "CHUP-001,CHUP,61,0,20"]).centers == {
        "CHUM-001": "CHUM",
        "CHUP-001": "CHUP",
    }


def test_units_are_asked_about_after_conversion(tmp_path):
    assert "A time of 'os' is 75 years" in own(tmp_path, ["1,A,60,1,900", "2,A,61,0,20"]).problems[0]


def test_a_mapping_whose_columns_no_table_has_is_told(tmp_path):
    (tmp_path / "t.csv").write_text(text())
    (tmp_path / "m.yaml").write_text("patient: PatientID\nvariables: {age: Age, tobacco: Smoker}\n")
    [sentence] = read_tables(tmp_path, mapping=tmp_path / "m.yaml").odd
    assert "'smoker' (tobacco)" in sentence
    (tmp_path / "m.yaml").write_text("patient: Patient\nvariables: {age: Age}\n")
    assert any("it reads nothing" in s for s in read_tables(tmp_path, mapping=tmp_path / "m.yaml").odd)


def test_copied_tables_keep_every_cell(tmp_path):
    (tmp_path / "t.csv").write_text("PatientID,Smoking,Code\n4711,None,007\n4712,NA,1.10\n")
    (tmp_path / "out").mkdir()
    copy_table(tmp_path / "t.csv", {"4711": "CHUM-002", "4712": "CHUM-001"}, tmp_path / "out")
    assert (tmp_path / "out" / "t.csv").read_text() == "PatientID,Smoking,Code\nCHUM-001,NA,1.10\nCHUM-002,None,007\n"
    (tmp_path / "t.csv").write_text("Number,Smoking\n4711,None\n")
    with pytest.raises(DataError, match="has 0 columns 'PatientID'"):
        copy_table(tmp_path / "t.csv", {}, tmp_path / "out")


def test_yaml_words_stay_what_was_typed(tmp_path):
    (tmp_path / "y.yaml").write_text("NO: 007\nname: 1.10\nswitch: yes\nday: 2026-11-27\nnothing: null\nempty:\n")
    assert load_text(tmp_path / "y.yaml") == {
        "NO": "007", "name": "1.10", "switch": "yes", "day": "2026-11-27", "nothing": None, "empty": None,
    }  # fmt: skip


def test_linked_folders_are_followed_once(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "t.csv").write_text(text())
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "root", target_is_directory=True)
    assert [path.name for path in files_below(tmp_path / "root")] == ["t.csv"]
