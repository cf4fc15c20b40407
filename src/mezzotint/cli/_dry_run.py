"""Dry runs: a recipe goes as far as it takes to tell how long its work will take."""

# ruff: noqa: PLC0415  (deferred imports: the help must come at once)

from __future__ import annotations

from collections.abc import Callable

import typer


class _ToldError(BaseException):  # no error of the recipe's, which would be reported
    """Ends a recipe once it has told how long it will take."""


def foretell(search: Callable[[], object], *, begun: bool) -> None:
    """Print what the recipe would do and how long that takes, and go no further.

    Args:
        search: the recipe's work.
        begun: some of it was done before, which is found out only after the calls are recorded:
            what is left to measure is told as well.
    """
    from mezzotint._progress import OVERALL, listening

    def stop(line: str) -> None:
        typer.echo(line)
        if not (begun and line.startswith(OVERALL)):
            raise _ToldError

    try:
        with listening(stop):
            search()
    except _ToldError:
        return
    typer.echo("nothing is left to measure")
