"""One schema for every hospital: the same columns everywhere, an explicit flag, and never what a task predicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.task import ClassificationTask, PrognosisTask
from common.data.records import MODEL_VARIABLES, SCHEMA, encode_records, record_layout, withheld_for
from common.errors import UnknownName
from common.tasks import withheld_fields

OUTCOMES = {"event", "days", "relapse", "rfs", "death", "os", "center", "centerid", "lungmets"}


def test_the_schema_holds_no_outcome_and_no_center():
    assert not OUTCOMES & {name.lower() for name in SCHEMA}


def test_a_record_becomes_values_and_flags():
    layout = record_layout(["age", "gender", "t_stage", "tumor_site", "tumor_volume_ml", "hpv"])
    values, flags = encode_records([{"age": 61.0, "gender": "male", "t_stage": "t3", "tumor_site": "larynx",
                                     "tumor_volume_ml": 10.0}, {}], layout)  # fmt: skip
    found = dict(zip(layout.values, values[0], strict=True))
    assert (found["age"], found["gender=male"], found["t_stage"], found["tumor_site=larynx"]) == (61, 1, 3, 1)
    assert found["tumor_volume_ml"] == pytest.approx(np.log(10)) and found["hpv"] == 0
    assert sum(v for n, v in found.items() if n.startswith("tumor_site")) == 1
    assert dict(zip(layout.flags, flags[0], strict=True)) == {
        "age": 1, "gender": 1, "hpv": 0, "t_stage": 1, "tumor_site": 1, "tumor_volume_ml": 1
    }  # fmt: skip
    assert not values[1].any() and not flags[1].any()


records = st.fixed_dictionaries(
    {},
    optional={
        "age": st.floats(0, 120),
        "gender": st.sampled_from(["male", "female"]),
        "hpv": st.sampled_from([0.0, 1.0]),
        "t_stage": st.sampled_from(SCHEMA["t_stage"].levels),
        "tumor_site": st.sampled_from(SCHEMA["tumor_site"].levels),
        "site": st.text(max_size=5),
        "treatment": st.sampled_from(SCHEMA["treatment"].levels),
    },
)


@given(st.lists(records, max_size=5))
def test_columns_depend_on_the_schema_alone_and_unknown_values_are_zero(found):
    layout = record_layout()
    values, flags = encode_records(found, layout)
    assert values.shape == (len(found), len(layout.values)) and flags.shape == (len(found), len(layout.flags))
    assert (values[layout.known(flags) == 0] == 0).all()
    assert np.isfinite(values).all() and set(np.unique(flags)) <= {0.0, 1.0}


def test_chemotherapy_is_one_column_whichever_edition_wrote_it():
    layout = record_layout(["chemotherapy"])
    written = [{"treatment": "chemoradiotherapy"}, {"chemotherapy": 1.0}, {"treatment": "radiotherapy"}, {}]
    values, flags = encode_records(written, layout)
    assert values[:, 0].tolist() == [1, 1, 0, 0] and flags[:, 0].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("target", ["hpv", "t_stage", "n_stage", "m_stage"])
def test_a_diagnosis_sees_neither_itself_nor_what_follows_from_it(target):
    withheld = withheld_for(target)
    layout = record_layout(withhold=withheld)
    assert target in withheld and {"treatment", "chemotherapy", "surgery", "radiotherapy"} <= withheld
    assert not {n.partition("=")[0] for n in layout.values} & withheld and not set(layout.flags) & withheld
    assert ("t_stage" in withheld) == (target != "hpv")
    task = ClassificationTask(classes=[target], form="binary", target=target)
    assert withheld_fields(task) >= withheld


def test_a_prognosis_may_see_every_variable_because_none_is_recorded_later():
    assert withheld_fields(PrognosisTask()) == withheld_for("outcome") == frozenset()
    assert set(record_layout().flags) == set(MODEL_VARIABLES)


def test_without_flags_the_columns_are_the_values_only():
    assert record_layout(["age", "hpv"]).names == ("age", "hpv", "age:known", "hpv:known")
    assert record_layout(["age", "hpv"], with_flags=False).names == ("age", "hpv")


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(UnknownName, match="Did you mean 'age'"):
        record_layout(["aeg"])
    with pytest.raises(UnknownName, match="Unknown target 'relapse'"):
        withheld_for("relapse")
