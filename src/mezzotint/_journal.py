"""A journal of finished measurements: after a kill, only the one in flight is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from mezzotint._durable import sync_folder
from mezzotint._files import replacing
from mezzotint._journal_lines import VERSION, Header, fault_of
from mezzotint._locks import only_here
from mezzotint.errors import JournalError

_BEGINNING = b'{"header"'


def discard_journal(path: Path) -> None:
    """Delete a journal, if there is one.

    Raises:
        JournalError: the file is something else.
        UsageError: another process is writing it.
    """
    if path.exists():
        with only_here(path, again=True):
            _check_is_journal(path, path.read_bytes())
            path.unlink()


def _check_is_journal(path: Path, content: bytes) -> None:
    """A kill may have left any part of a header, even none."""
    if not content.startswith(_BEGINNING[: len(content)]):
        raise JournalError(f"{path}: line 1 is no journal's; name another file")


@dataclass(frozen=True)
class Record:
    """The content of a journal.

    Attributes:
        header: what was measured, JSON values: another run may only use it where this is the same.
        entries: unit → result.
    """

    header: Mapping[str, Any]
    entries: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a journal, whole or cut short by a kill.

        Raises:
            JournalError: the file is missing, is something else, was written by another version,
                or is damaged before its last line.
        """
        try:
            content = path.read_bytes()
        except OSError as cause:
            raise JournalError(f"{path}: holds no measurements ({cause.strerror})") from cause
        return _parsed(path, content).record

    def write(self, path: str | Path) -> None:
        """Write it as a journal, complete or not at all."""
        header = Header.new(self.header)
        lines = [header.line]
        lines += [header.entry_line(unit, result) for unit, result in self.entries.items()]
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(b"".join(lines))


@dataclass(frozen=True)
class _Parsed:
    """A journal as it stands in a file.

    Attributes:
        header: its first line.
        entries: unit → result.
        intact: bytes before what a kill cut short.
    """

    header: Header
    entries: dict[str, dict[str, Any]]
    intact: int

    @property
    def record(self) -> Record:
        """Its content."""
        return Record(self.header.values, self.entries)


def _parsed(path: Path, content: bytes) -> _Parsed:
    _check_is_journal(path, content)
    header = Header({}, None, None)
    entries: dict[str, dict[str, Any]] = {}
    intact = 0
    # A flipped bit can make a carriage return, which ends no line; what ends in none was cut short.
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            if number == 1:
                header = Header.of(line)
            else:
                unit, result = header.entry_of(line)
                entries[unit] = result
        except ValueError as cause:
            raise JournalError(
                f"{path}: line {number} is damaged ({cause}); delete the file to measure again"
            ) from cause
        intact += len(line) + 1
    for unit, result in entries.items():
        if (fault := fault_of(result)) is not None:
            raise JournalError(
                f"{path}: unit {unit!r}: {fault}; delete its line to measure it again"
            )
    if header.version not in (None, VERSION):
        raise JournalError(
            f"{path}: was written by mezzotint {header.version}, and figures of {VERSION} may "
            "be others; go on with that version, or delete the file to measure again"
        )
    return _Parsed(header, entries, intact)


def differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """The first key of two headers that differs; None where they agree."""
    keys = dict.fromkeys([*expected, *found])
    return next((key for key in keys if expected.get(key) != found.get(key)), None)


class Journal:
    """JSON lines: a header that says what is being measured, then a line per finished unit.

    Each line has a checksum, of the header as well, and the header the version that writes it.
    Journals of versions before 0.1.0 was released have neither: they are gone on with, their
    figures taken on trust. A last line that a kill cut short is dropped. With `path` None nothing
    is kept on disk.

    Raises:
        JournalError: the file belongs to another measurement or version, or is damaged before its
            last line.
        UsageError: another process is writing it.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        # The form in which it is read back: JSON knows no tuples.
        self.header: dict[str, Any] = json.loads(json.dumps(dict(header)))
        self.entries: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, Path] = {}
        self._header = Header.new(self.header)
        self._file: BinaryIO | None = None
        self._held = ExitStack()
        if path is None:
            return
        if path.is_dir():
            raise JournalError(f"{path}: is a folder; name a file for the journal")
        with ExitStack() as held:
            held.enter_context(only_here(path, again=True))
            keep = self._read(path) if path.exists() else 0
            self._file = held.enter_context(path.open("r+b" if keep else "wb"))
            sync_folder(path.parent)
            self._file.truncate(keep)
            self._file.seek(keep)
            if not keep:
                self._write(self._header.line)
            self._held = held.pop_all()

    def _read(self, path: Path) -> int:
        """Fill `entries`; returns the length of the intact part."""
        found = _parsed(path, path.read_bytes())
        begun = found.header.values
        key = differing(self.header, begun) if found.intact else None
        if key is not None:
            raise JournalError(
                f"{path}: was begun with {key} = {begun.get(key)!r}, now it is "
                f"{self.header.get(key)!r}; use the same settings, or another file"
            )
        if found.intact:
            self._header = found.header
        self.entries.update({unit: dict(result) for unit, result in found.entries.items()})
        self._sources.update(dict.fromkeys(found.entries, path))
        return found.intact

    @property
    def record(self) -> Record:
        """Its header, and what it holds now."""
        return Record(self.header, dict(self.entries))

    def _write(self, line: bytes) -> None:
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __contains__(self, unit: str) -> bool:
        return unit in self.entries

    def __getitem__(self, unit: str) -> dict[str, Any]:
        return self.entries[unit]

    def source(self, unit: str) -> Path | None:
        """The file that the result of a unit was read from; None where it was read from none."""
        return self._sources.get(unit)

    def add(self, unit: str, result: Mapping[str, Any], source: Path | None = None) -> None:
        """Record a finished unit, on disk before this returns.

        Args:
            unit: its key.
            result: JSON values.
            source: the file that it was read from, if it was.
        """
        self.entries[unit] = dict(result)
        if source is not None:
            self._sources[unit] = source
        self._write(self._header.entry_line(unit, self.entries[unit]))

    def close(self) -> None:
        """Close the file; entries stay readable."""
        self._file = None
        self._held.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
