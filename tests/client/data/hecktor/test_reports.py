"""The report says what is recorded, in a closed vocabulary, and never the outcome or the center."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from client.data.hecktor.reports import clinical_vocabulary, report_text
from client.data.layouts import find_cases

FLAG = st.sampled_from([0.0, 1.0])
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "age": st.floats(0, 120),
        "gender": st.sampled_from(["male", "female"]),
        "weight_kg": st.floats(1, 400),
        "tobacco": FLAG,
        "alcohol": FLAG,
        "hpv": FLAG,
        "surgery": FLAG,
        "chemotherapy": FLAG,
        "radiotherapy": FLAG,
        "performance_status": st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]),
        "t_stage": st.sampled_from(["t0", "t1", "t4"]),
        "n_stage": st.sampled_from(["n0", "n3"]),
        "m_stage": st.sampled_from(["m0", "m1"]),
        "treatment": st.sampled_from(["radiotherapy", "chemoradiotherapy"]),
        "grade": st.sampled_from(["low", "high"]),
        "site": st.text(max_size=30),
        "histology": st.text(max_size=30),
        "event": FLAG,
        "days": st.floats(0, 4000),
        "center": st.sampled_from(["CHUM", "MDA"]),
    },
)
FORBIDDEN = {"relapse", "relapsed", "survival", "rfs", "os", "death", "dead", "event", "days", "follow", "center"}


def test_the_full_template_reads_like_this():
    record = {
        "hpv": 1.0,
        "age": 63.0,
        "gender": "male",
        "weight_kg": 78.0,
        "tobacco": 0.0,
        "performance_status": 1.0,
        "t_stage": "t2",
        "chemotherapy": 1.0,
    }
    assert report_text(record) == (
        "63 year old man in the sixties . medium build weight 80 kg . performance status 1 . no tobacco use . "
        "hpv positive . tumor stage t2 . with chemotherapy ."
    )
    assert report_text(record, withhold={"hpv", "t_stage"}) == (
        "63 year old man in the sixties . medium build weight 80 kg . performance status 1 . no tobacco use . "
        "with chemotherapy ."
    )


def test_unknown_fields_leave_no_trace():
    assert report_text({}) == ""
    assert report_text({"gender": "female"}) == "woman ."
    assert report_text({"age": 101.0}) == "101 year old patient in the nineties ."
    assert report_text({"site": "Hopital Maisonneuve, CHUM"}) == ""


@given(RECORDS)
def test_reports_stay_in_the_vocabulary_and_never_tell_outcome_or_center(record):
    words = report_text(record).split()
    assert set(words) <= clinical_vocabulary()
    assert not FORBIDDEN & set(words) and not {"chum", "mda", "chest"} & set(words)
    hidden = {k: v for k, v in record.items() if k not in ("event", "days", "center")}
    assert report_text(hidden) == report_text(record)
    assert report_text(dict(reversed(record.items()))) == report_text(record)
    assert report_text(record, withhold=record.keys()) == ""


def test_the_vocabulary_itself_holds_no_outcome_words():
    words = clinical_vocabulary()
    assert not FORBIDDEN & words and all(re.fullmatch(r"[a-z0-9]+|\.", word) for word in words)
    assert 100 < len(words) < 400


def test_real_records_never_tell_their_outcome_or_center(shared_data):
    cases = find_cases(shared_data / "sts7") + find_cases(shared_data / "hn4")
    for case in cases:
        words = set(report_text(case.record).split())
        assert words and words <= clinical_vocabulary()
        assert case.center.lower() not in words and case.patient.lower() not in words
        assert str(int(case.days)) not in words or case.days <= 400  # a number of days could only equal a weight or age
