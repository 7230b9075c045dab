"""Every option that a configuration may name has something behind it, and the other way round."""

from client.data.images import intensities
from common.config import options
from common.protocol.weights import WEIGHTS


def test_lists_of_options_are_those_of_the_code_behind_them():
    assert set(options.WEIGHTINGS) == set(WEIGHTS)
    assert set(options.PET_SCALES) == set(intensities.PET_SCALES)
    assert set(options.SCALES) == set(intensities.SCALES)
