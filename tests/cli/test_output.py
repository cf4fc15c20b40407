"""Tables as they are printed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from rich.table import Table

from mezzotint.cli import _output
from mezzotint.cli._output import check_file, check_free, print_tables
from mezzotint.errors import UsageError


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


class TestPlaces:
    """File systems that take nothing, whatever their permissions say."""

    @staticmethod
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    def test_nothing_can_be_written_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(tempfile, "TemporaryFile", self.refused)
        message = r"folder to write to \(Read-only file system\); choose another place"
        with pytest.raises(UsageError, match=message):
            check_free(tmp_path / "deep" / "out", force=False)
        with pytest.raises(UsageError, match=message):
            check_file(tmp_path / "deep" / "out.json")

    def test_nothing_can_be_looked_at(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(_output, "is_taken", self.refused)
        with pytest.raises(UsageError, match="Read-only file system; choose another place"):
            check_free(tmp_path / "out", force=False)

    def test_the_check_leaves_nothing(self, tmp_path: Path):
        check_free(tmp_path / "deep" / "out", force=False)
        assert not [*tmp_path.iterdir()]
