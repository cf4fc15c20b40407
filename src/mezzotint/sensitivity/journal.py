"""A journal of finished measurements: after a kill, only the one in flight is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mezzotint.errors import JournalError

_BEGINNING = b'{"header"'


def discard_journal(path: Path) -> None:
    """Delete a journal, if there is one.

    Raises:
        JournalError: the file is something else.
    """
    if path.exists():
        _check_is_journal(path, path.read_bytes())
        path.unlink()


def _check_is_journal(path: Path, content: bytes) -> None:
    """A kill may have left any part of a header, even none."""
    if not content.startswith(_BEGINNING[: len(content)]):
        raise JournalError(f"{path}: line 1 is no journal's; name another file")


class Journal:
    """JSON lines: a header that says what is being measured, then a line per finished unit.

    A last line that a kill cut short is dropped. With `path` None nothing is kept on disk.

    Raises:
        JournalError: the file belongs to another measurement, or is damaged before its last line.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        # As it reads back: JSON knows no tuples.
        self.header: dict[str, Any] = json.loads(json.dumps(dict(header)))
        self.entries: dict[str, dict[str, Any]] = {}
        self._file = None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        keep = self._read(path) if path.exists() else 0
        self._file = path.open("r+b" if keep else "wb")
        self._file.truncate(keep)
        self._file.seek(keep)
        if not keep:
            self._write({"header": self.header})

    def _read(self, path: Path) -> int:
        """Fill `entries`; returns the length of the intact part."""
        intact, content = 0, path.read_bytes()
        _check_is_journal(path, content)
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                if number == 1:
                    self._check_header(path, record["header"])
                else:
                    self.entries[record["unit"]] = dict(record["result"])
            except (ValueError, KeyError, TypeError, AttributeError) as cause:
                raise JournalError(
                    f"{path}: line {number} is damaged; delete the file to measure again"
                ) from cause
            intact += len(line)
        return intact

    def _check_header(self, path: Path, found: Mapping[str, Any]) -> None:
        for key in dict.fromkeys([*self.header, *found]):
            if self.header.get(key) != found.get(key):
                raise JournalError(
                    f"{path}: was begun with {key} = {found.get(key)!r}, now it is "
                    f"{self.header.get(key)!r}; use the same settings, or another file"
                )

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __contains__(self, unit: str) -> bool:
        return unit in self.entries

    def __getitem__(self, unit: str) -> dict[str, Any]:
        return self.entries[unit]

    def add(self, unit: str, result: dict[str, Any]) -> None:
        """Record a finished unit, on disk before this returns."""
        self.entries[unit] = result
        self._write({"unit": unit, "result": result})

    def close(self) -> None:
        """Close the file; entries stay readable."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
