"""Journals whose content was changed, with checksums as of what was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mezzotint._journal_lines import Header

Entry = tuple[str, Any]


def edit(path: Path, change: Callable[[dict[str, Any], list[Entry]], list[Entry]]) -> None:
    """Write a journal anew.

    Args:
        path: of the journal.
        change: given the header's values, which it may change, and the entries: those to write.
    """
    first, *rest = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    entries = change(first["header"], [(line["unit"], line["result"]) for line in rest])
    header = Header.new(first["header"])
    lines = [header.line, *(header.entry_line(*each) for each in entries)]
    path.write_bytes(b"".join(lines))
