"""Text of others, such as names in files, as a terminal may show it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every character that a terminal obeys, or does not show, as its escape.

    Line breaks stay.
    """
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )
