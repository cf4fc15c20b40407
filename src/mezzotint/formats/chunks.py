"""A few rows at a time, so that temporaries stay small beside the weight."""

from __future__ import annotations

from collections.abc import Iterator

#: Weights looked at together.
CHUNK = 2**22

#: Weights rounded together: more would leave the cache, fewer would be mostly overhead.
PIECE = 2**18


def row_chunks(rows: int, columns: int, size: int | None = None) -> Iterator[slice]:
    """Slices that cover `rows` rows, about `size` (`CHUNK`) weights each, a row at least."""
    step = max(1, (size or CHUNK) // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
