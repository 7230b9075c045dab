"""Text from elsewhere is one line, short, and of what can be seen."""

import pytest

from common.text import is_plain, one_line


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("head/w", "head/w"), ("a\nERROR code=ok", "a ERROR code=ok"), ("a\r\x1b[31mb", "a  [31mb"),
        ("a\u2028b\u202ec\u0000", "a b c "), ("Universit\u00e4t", "Universit\u00e4t"), ("x" * 20, "x" * 10 + "…"),
    ],
)  # fmt: skip
def test_one_line(text, seen):
    assert one_line(text, 10 if text.startswith("xx") else 300) == seen
    assert is_plain(text, 10 if text.startswith("xx") else 300) is (seen == text)
