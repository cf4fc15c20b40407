"""The table of docs/pipelines.md says what the matrix tests."""

from tests.docs.pages import ROOT
from tests.pipelines.columns import COLUMNS
from tests.pipelines.registry import PIPELINES
from tests.pipelines.table import table, with_table

PAGE = (ROOT / "docs" / "pipelines.md").read_text("utf-8")


def test_the_table_is_up_to_date():
    assert with_table(PAGE) == PAGE, "run `make docs`"
    assert table() in PAGE


def test_every_refusal_is_explained():
    for tiny in PIPELINES:
        for refusal in tiny.refusals.values():
            assert f") {refusal.why}\n" in PAGE


def test_every_cell_is_there():
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    names = {tiny.title for tiny in PIPELINES}
    cells = [cell for name, *row in rows if name.removeprefix("| ") in names for cell in row]
    assert len(cells) == len(PIPELINES) * len(COLUMNS)
