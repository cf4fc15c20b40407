"""A few rows at a time, so that temporaries stay small beside the weight."""

from __future__ import annotations

from collections.abc import Iterator

#: Weights looked at together.
CHUNK = 2**22


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cover `rows` rows, about `CHUNK` weights each, a row at least."""
    step = max(1, CHUNK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
