import pytest

from mezzotint._printable import printable


@pytest.mark.parametrize("text", ["conv_in", "ü ✓ 漢", "two\nlines", "", "a\\x1bb"])
def test_text_stays(text: str):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\tc\x00", r"a\rb\tc\x00"),
        ("\u202eevil", r"\u202eevil"),
        ("\u2028", r"\u2028"),
    ],
)
def test_orders_to_a_terminal_are_spelled_out(text: str, shown: str):
    assert printable(text) == shown
