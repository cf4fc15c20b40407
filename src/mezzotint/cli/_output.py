"""Results on standard output, for people or for programs; and where results may be written."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mezzotint._files import is_taken, write_json
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
        console.print(table)


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


def check_free(output: Path, *, force: bool) -> None:
    """Refuse to write where something else stands.

    What may be replaced is for the function that writes to say.

    Raises:
        UsageError: the path is taken, by more than an empty folder, and `force` is off; or nothing
            can be written there.
    """
    if is_taken(output) and not force:
        raise UsageError(f"{output}: exists already; choose another place, or add --force")
    above = next(each for each in output.absolute().parents if each.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UsageError(f"{output}: {above} is no folder to write to; choose another place")
