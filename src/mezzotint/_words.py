"""Fields of options that are some words, or yes and no."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from mezzotint.errors import UsageError


def check_words(options: Any) -> None:
    """Check that every field of some words, or of yes and no, has one of them.

    Raises:
        UsageError: names the field and its words.
    """
    for name, hint in typing.get_type_hints(type(options)).items():
        allowed, given = typing.get_args(hint), getattr(options, name)
        if hint is bool and type(given) is not bool:
            raise UsageError(f"{name}: is {given!r}; it is one of: True, False")
        if typing.get_origin(hint) is typing.Literal and given not in allowed:
            known = ", ".join(map(str, allowed))
            raise UsageError(f"{name}: is {given!r}; it is one of: {known}")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `a and b`, or `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
