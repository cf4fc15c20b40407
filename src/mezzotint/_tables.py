"""Tables in a terminal."""

from __future__ import annotations

from rich.table import Table


def titled_table(title: str, *columns: str) -> Table:
    """An empty table; columns whose name ends in a colon hold numbers."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = column.endswith(":")
        table.add_column(
            column.removesuffix(":"), justify="right" if numeric else "left", overflow="fold"
        )
    return table
