"""Helpers of the exception tree."""

import pytest

from mezzotint.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("\n  no space left\nat line 3"), "no space left"),
        (ValueError(""), "ValueError"),
        (KeyError("weight"), "'weight'"),
    ],
    ids=["several lines", "nothing said", "one line"],
)
def test_the_first_line_of_an_error(error: Exception, line: str):
    assert first_line(error) == line
