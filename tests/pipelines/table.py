"""The table of docs/pipelines.md, written from the registry: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.pipelines.columns import COLUMNS
from tests.pipelines.registry import PIPELINES
from tests.pipelines.tiny_pipeline import Refusal, TinyPipeline

_TABLE = re.compile(r"(?<=<!-- table: make docs -->\n).*(?=<!-- end of the table -->)", re.DOTALL)


def table() -> str:
    """A row for each pipeline, then a sentence for each refusal, and for each column."""
    notes: dict[Refusal, int] = {}

    def cell(tiny: TinyPipeline, column: str) -> str:
        refusal = tiny.refusals.get(column)
        return "yes" if refusal is None else f"no ({notes.setdefault(refusal, len(notes) + 1)})"

    rows = [["pipeline", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    rows += [[tiny.title, *(cell(tiny, column) for column in COLUMNS)] for tiny in PIPELINES]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"({number}) {note.why}\n" for note, number in notes.items())]
    lines += ["| column | meaning |", "|---|---|"]
    lines += [f"| {column} | {meaning} |" for column, meaning in COLUMNS.items()]
    return "\n".join([*lines, ""])


def with_table(page: str) -> str:
    """The page with the table of today."""
    return _TABLE.sub(lambda _: table(), page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")
