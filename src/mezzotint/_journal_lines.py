"""Lines of a journal: JSON objects, each with a checksum of all else that stands in it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Self

VERSION = metadata.version("mezzotint")
"""The version of this program, in the header of the journals that it writes."""

_CHECK = "check"


@dataclass(frozen=True)
class Header:
    """First line of a journal.

    Attributes:
        values: what is being measured, JSON values.
        version: of mezzotint, that wrote the journal; None for one from before there were checks.
    """

    values: dict[str, Any]
    version: str | None

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Read it; raises ValueError saying what is wrong."""
        found = _parsed(line)
        version = found.get("mezzotint")
        if version is not None and not isinstance(version, str):
            raise ValueError(f"mezzotint is {version!r}; expected a version")
        if version is not None:
            _check(found)
        if not isinstance(found.get("header"), dict):
            raise ValueError("it has no header")
        return cls(found["header"], version)


def header_line(values: Mapping[str, Any]) -> bytes:
    """The first line of a journal that this version writes."""
    return _line({"header": dict(values), "mezzotint": VERSION})


def entry_line(unit: str, result: Mapping[str, Any]) -> bytes:
    """The line of a finished unit."""
    return _line({"unit": unit, "result": dict(result)})


def entry_of(line: bytes, *, checked: bool) -> tuple[str, dict[str, Any]]:
    """Unit and result of a line; raises ValueError saying what is wrong.

    Args:
        line: of the journal.
        checked: it must have a checksum.
    """
    found = _parsed(line)
    if checked or _CHECK in found:
        _check(found)
    unit, result = found.get("unit"), found.get("result")
    if not isinstance(unit, str) or not isinstance(result, dict):
        raise ValueError("it has no unit and result")
    return unit, result


def fault_of(result: Mapping[str, Any]) -> str | None:
    """Reason why a result cannot be one of any measurement; None where it may be."""
    for name, value in result.items():
        if not _is_figure(value):
            return f"{name} is {value!r}; expected a number, text, null, or a list of texts"
    return None


def _is_figure(value: object) -> bool:
    """True for what results are made of: numbers, null where there is none, names, and lists."""
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps({**record, _CHECK: _digest(record)}).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except RecursionError as cause:
        raise ValueError("it is nested too deep") from cause
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _check(record: dict[str, Any]) -> None:
    if record.pop(_CHECK, None) != _digest(record):
        raise ValueError("its checksum is that of another line")


def _digest(record: Mapping[str, Any]) -> str:
    """A digest of the form in which a record is written."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]
