"""Dry runs: a recipe goes as far as the first line that tells how long its work will take."""

# ruff: noqa: PLC0415  (deferred imports: the help must come at once)

from __future__ import annotations

from collections.abc import Callable

import typer


class _ToldError(BaseException):  # no error of the recipe's, which would be reported
    """Ends a recipe once it has told how long it will take."""


def foretell(search: Callable[[], object]) -> None:
    """Print what the recipe would measure and how long that takes, and go no further."""
    from mezzotint._progress import listening

    def stop(line: str) -> None:
        typer.echo(line)
        raise _ToldError

    try:
        with listening(stop):
            search()
    except _ToldError:
        return
    typer.echo("nothing is left to measure")
