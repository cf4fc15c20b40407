"""Results on standard output, for people or for programs; and where results may be written."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mezzotint._files import is_taken, write_json
from mezzotint._locks import only_here
from mezzotint._printable import printable
from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

_PIPED_WIDTH = 240
"""Columns of a table that goes to a file or a program: nothing to fold lines for."""


def print_json(value: Any) -> None:
    """A JSON value, indented."""
    typer.echo(json.dumps(value, indent=2))


def print_tables(tables: Sequence[Table]) -> None:
    """Tables as wide as the terminal."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    for table in tables:
        console.print(_disarmed(table))


def _disarmed(table: Table) -> Table:
    """The table with names in cells for text, which neither rich nor the terminal obeys."""
    from rich.text import Text

    found = copy.copy(table)
    found.columns, found.rows = [], []
    for column in table.columns:
        options = {name: getattr(column, name) for name in _COLUMN_OPTIONS}
        found.add_column(column.header, column.footer, **options)
    cells = zip(*(column.cells for column in table.columns), strict=True)
    for row, each in zip(table.rows, cells, strict=True):
        texts = (Text(printable(cell)) if isinstance(cell, str) else cell for cell in each)
        found.add_row(*texts, style=row.style, end_section=row.end_section)
    for part in ("title", "caption"):
        text = getattr(table, part)
        if isinstance(text, str):
            setattr(found, part, printable(text))
    return found


_COLUMN_OPTIONS = (
    *("header_style", "footer_style", "highlight", "style", "justify", "vertical", "overflow"),
    *("width", "min_width", "max_width", "ratio", "no_wrap"),
)
"""Options of `Table.add_column` that are attributes of the column as well."""


def show(value: Any, tables: Sequence[Table], *, as_json: bool) -> None:
    """Print `value`, or the tables that say the same."""
    if as_json:
        print_json(value)
    else:
        print_tables(tables)


def deliver(value: Any, tables: Sequence[Table], json_file: Path | None) -> None:
    """Print the tables and write `value` to a file; for `-` print `value` alone."""
    show(value, tables, as_json=str(json_file) == "-")
    if json_file is not None and str(json_file) != "-":
        write_json(json_file, value)


@contextmanager
def reserved(output: Path, *, force: bool) -> Iterator[None]:
    """Keep other processes from `output`, and from what is kept beside it, until it is written.

    Raises:
        UsageError: another one is at work on it, or as `check_free`.
    """
    check_free(output, force=force)
    with only_here(output):
        check_free(output, force=force)
        yield


def check_free(output: Path, *, force: bool) -> None:
    """Refuse to write where something else stands.

    What may be replaced is for the function that writes to say.

    Raises:
        UsageError: the path is taken, by more than an empty folder, and `force` is off; it is the
            working folder, or holds it; or nothing can be written there.
    """
    with _named(output):
        if Path.cwd().is_relative_to(output.resolve()):
            raise UsageError(
                f"{output}: the working folder would be replaced by another; name a folder within "
                "it, or elsewhere"
            )
        if is_taken(output) and not force:
            raise UsageError(f"{output}: exists already; choose another place, or add --force")
        _check_place(output)


def check_file(output: Path | None) -> None:
    """Refuse, before any work is done, a file that could not be written after it.

    Args:
        output: None, or `-` for standard output, for no file.

    Raises:
        UsageError: a folder stands there, or nothing can be written.
    """
    if output is None or str(output) == "-":
        return
    with _named(output):
        if output.is_dir():
            raise UsageError(f"{output}: is a folder; name a file to write to")
        _check_place(output)


def _check_place(output: Path) -> None:
    above = next(each for each in output.absolute().parents if each.exists())
    if not above.is_dir():
        raise UsageError(f"{output}: {above} is no folder to write to; choose another place")
    try:
        # Permissions do not tell: some file systems take nothing, not even from their owner.
        tempfile.TemporaryFile(dir=above).close()
    except OSError as cause:
        raise UsageError(
            f"{output}: {above} is no folder to write to ({cause.strerror}); choose another place"
        ) from cause


@contextmanager
def _named(output: Path) -> Iterator[None]:
    """Raise UsageError where the system cannot even look whether something stands there."""
    try:
        yield
    except OSError as cause:
        raise UsageError(f"{output}: {cause.strerror}; choose another place") from cause
