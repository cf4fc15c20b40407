"""Tables as they are printed."""

from __future__ import annotations

import pytest
from rich.table import Table

from mezzotint.cli._output import print_tables


def printed(table: Table, capsys: pytest.CaptureFixture[str]) -> str:
    print_tables([table])
    return capsys.readouterr().out


def table() -> Table:
    found = Table(title="one", caption="two")
    found.add_column("name", justify="right", no_wrap=True, min_width=12)
    found.add_column("value", overflow="fold", ratio=1)
    return found


def test_names_are_text(capsys: pytest.CaptureFixture[str]):
    hostile = table()
    hostile.add_row("[red]a[/red]", "\x1b[31m:smile:")
    text = printed(hostile, capsys)
    assert "[red]a[/red]" in text
    assert ":smile:" in text
    assert "\x1b" not in text


def test_the_table_itself_is_left_as_it_is(capsys: pytest.CaptureFixture[str]):
    kept = table()
    kept.add_row("[b]a", "b", end_section=True)
    assert printed(kept, capsys) == printed(kept, capsys)
    assert [list(column.cells) for column in kept.columns] == [["[b]a"], ["b"]]


def test_columns_and_rows_keep_their_options(capsys: pytest.CaptureFixture[str]):
    kept = table()
    kept.add_row("a", "b", end_section=True)
    kept.add_row("c", "d")
    lines = printed(kept, capsys).splitlines()
    (row,) = (index for index, line in enumerate(lines) if "            a " in line)
    assert "─" in lines[row + 1]
    assert "c" in lines[row + 2]


def test_a_table_without_columns(capsys: pytest.CaptureFixture[str]):
    assert "one" not in printed(Table(), capsys)
