"""Tables in a terminal, and in notebooks."""

from __future__ import annotations

from html import escape

from rich.table import Table
from rich.text import Text


def titled_table(title: str, *columns: str) -> Table:
    """An empty table; columns whose name ends in a colon hold numbers."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        numeric = column.endswith(":")
        table.add_column(
            column.removesuffix(":"), justify="right" if numeric else "left", overflow="fold"
        )
    return table


def html_table(table: Table, caption: str) -> str:
    """An HTML table for notebooks, with a caption; whatever cells hold is text."""
    head = "".join(f"<th>{_html(column.header)}</th>" for column in table.columns)
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td>{_html(cell)}</td>' for cell in row)}</tr>" for row in rows)
    notes = f"<p>{_html(table.caption)}</p>" if table.caption else ""
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
    )


def _html(cell: object) -> str:
    plain = Text.from_markup(cell).plain if isinstance(cell, str) else str(cell)
    return escape(plain).replace("\n", "<br>")
