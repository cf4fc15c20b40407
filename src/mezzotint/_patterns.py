"""Naming layers by pattern, the same way in plans, options and on the command line."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from mezzotint.errors import UsageError


def matches(name: str, pattern: str) -> bool:
    """True if layer `name` is meant by `pattern`.

    A pattern is a dotted name of the layer or of a module around it, a glob, or a regular
    expression after `re:` for the whole name.

    Raises:
        UsageError: the regular expression is malformed.
    """
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], name) is not None
        except re.error as cause:
            raise UsageError(
                f"{pattern!r} is not a valid regular expression: {cause}; mend it, or name layers "
                "without re:, as in '*.to_k'"
            ) from cause
    return name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)


def check_pattern(option: str, pattern: str) -> None:
    """Refuse a pattern that could name nothing, before there are names.

    Args:
        option: that the pattern is of, for the message.
        pattern: as of `matches`.

    Raises:
        UsageError: the regular expression is malformed.
    """
    try:
        matches("", pattern)
    except UsageError as cause:
        raise UsageError(f"{option}: {cause}") from cause
