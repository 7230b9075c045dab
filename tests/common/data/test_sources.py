"""What a stage looks at, as it is written."""

import pytest

from common.data.sources import Source, named_sources, source_problems


def test_a_modality_has_a_form_of_its_own_unless_another_is_named():
    assert named_sources(["EHR", "CT", "CT:slices", "PET:projection"]) == (
        Source("EHR", "report"), Source("CT", "volume"), Source("CT", "slices"), Source("PET", "projection"),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["RECORD", "ct", "CT:report", "EHR:slices", "CT:slice", ""])
def test_what_is_no_source_is_said_with_the_options(text):
    [sentence] = source_problems([text], where="task.sources")
    assert sentence == (
        f"task.sources names '{text}', which is no source; write EHR for reports, or an image as CT, CT:slices or "
        "PET:projection (forms: projection, slices, volume)."
    )


def test_a_source_that_repeats_is_said_once():
    assert list(source_problems(["CT", "EHR", "CT:volume"], where="stages")) == [
        "stages names CT_volume twice; a stage is learned once."
    ]
