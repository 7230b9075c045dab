"""Columns in public ranges: every row is as short as was said, whatever a patient's numbers are."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from common.data.records import MODEL_VARIABLES, record_layout
from common.exact.ranges import of_length_one, ranges_of, shortened, within_range


def test_every_column_of_a_record_has_a_range():
    ranges = ranges_of(record_layout().values)
    assert len(ranges) == len(record_layout().values) and (ranges[:, 1] > ranges[:, 0]).all()
    assert ranges_of(record_layout(["age", "hpv", "t_stage"]).values).tolist() == [[30, 90], [0, 1], [0, 4]]
    assert set(MODEL_VARIABLES) >= {"weight_kg", "tumor_volume_ml"}


def test_values_go_from_minus_one_to_one_and_what_is_not_recorded_is_zero():
    values, known = torch.tensor([[30.0, 200.0, 60.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    ranges = torch.tensor([[30.0, 90.0]] * 4, dtype=torch.float64)
    assert within_range(values, ranges, known).tolist() == [[-1.0, 1.0, 0.0, 0.0]]


def test_features_are_of_length_one_whatever_their_scale():
    features = torch.tensor([[1.0, 2.0, 3.0], [1e6, 2e6, 3e6], [5.0, 5.0, 5.0]])
    found = of_length_one(features)
    assert torch.allclose(found[0], found[1]) and found[2].tolist() == [0, 0, 0]
    assert torch.allclose(found[:2].norm(dim=1), torch.ones(2, dtype=torch.float64))


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4), st.floats(0.01, 100), st.booleans())
def test_no_row_is_longer_and_a_short_one_stays(numbers, longest, with_flags):
    values, flags = torch.tensor([numbers[:3]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    found, told = shortened(values, flags, longest=longest, with_flags=with_flags)
    row, before = (torch.cat([v, f], dim=1) if with_flags else v for v, f in ((found, told), (values, flags)))
    assert row.norm() <= longest * (1 + 1e-12)
    if before.norm() <= longest:
        assert torch.equal(row, before)
