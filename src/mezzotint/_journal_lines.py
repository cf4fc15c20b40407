"""Lines of a journal: JSON objects, each with a checksum of all else in it and of the header."""

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
_BOUND = "bound"


@dataclass(frozen=True)
class Header:
    """First line of a journal.

    Attributes:
        values: what is being measured, JSON values.
        version: of mezzotint, that wrote the journal; None for one from before there were checks.
        check: of this line, which goes into those of all others, so that no line of another journal
            passes; None for a journal from before it did.
    """

    values: Mapping[str, Any]
    version: str | None
    check: str | None

    @classmethod
    def new(cls, values: Mapping[str, Any]) -> Self:
        """The header of a journal that this version begins."""
        return cls(values, VERSION, _digest(_record(values)))

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Read it; raises ValueError saying what is wrong."""
        found = _parsed(line)
        version = found.get("mezzotint")
        if version is not None and not isinstance(version, str):
            raise ValueError(f"mezzotint is {version!r}; expected a version")
        bound = found.get(_BOUND) is True
        check = found.get(_CHECK)
        if version is not None:
            _check(found)
        if not isinstance(found.get("header"), dict):
            raise ValueError("it has no header")
        return cls(found["header"], version, check if bound else None)

    @property
    def line(self) -> bytes:
        """The line of a journal that this version begins."""
        return _line(_record(self.values))

    def entry_line(self, unit: str, result: Mapping[str, Any]) -> bytes:
        """The line of a finished unit."""
        return _line({"unit": unit, "result": dict(result)}, self.check)

    def entry_of(self, line: bytes) -> tuple[str, dict[str, Any]]:
        """Unit and result of a line; raises ValueError saying what is wrong."""
        found = _parsed(line)
        if self.version is not None or _CHECK in found:
            _check(found, self.check)
        unit, result = found.get("unit"), found.get("result")
        if not isinstance(unit, str) or not isinstance(result, dict):
            raise ValueError("it has no unit and result")
        return unit, result


def _record(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"header": dict(values), "mezzotint": VERSION, _BOUND: True}


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


def _line(record: Mapping[str, Any], header: str | None = None) -> bytes:
    return json.dumps({**record, _CHECK: _digest(record, header)}).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except RecursionError as cause:
        raise ValueError("it is nested too deep") from cause
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _check(record: dict[str, Any], header: str | None = None) -> None:
    if record.pop(_CHECK, None) != _digest(record, header):
        raise ValueError("its checksum is that of another line, or of another journal's")


def _digest(record: Mapping[str, Any], header: str | None = None) -> str:
    """A digest of the form in which a record is written, and of the header's digest."""
    return hashlib.sha256(((header or "") + json.dumps(record)).encode()).hexdigest()[:16]
