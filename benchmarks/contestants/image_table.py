"""Tables of plans that are judged by their images: titles, cells and layout that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .kept_rows import Found

FIGURES = (
    "FD-Lite0 to the original", "FD-Lite0 to real pictures", "R-precision",
    "change against the original", "PSNR (dB)",
)  # fmt: skip
"""Titles of `figure_cells`."""


def figure_cells(one: Found) -> tuple[str, ...]:
    """A row's figures of images, with their intervals."""
    return (
        spread(one["fd_interval"], 2),
        "" if one["fd_real"] is None else f"{one['fd_real']:.1f}",
        f"{one['r_precision']['value']:.3f}", spread(one["r_precision_change"], 3),
        spread(one["psnr_db"], 2),
    )  # fmt: skip


def spread(found: Found, digits: int) -> str:
    value, low, high = (f"{found[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def tables(
    rows: Sequence[Found],
    names: Iterable[str],
    titles: Sequence[str],
    line: Callable[[Found], str],
) -> list[str]:
    """Lines of Markdown: a table for each of those that have rows."""
    lines: list[str] = []
    for name in names:
        own = [one for one in rows if one["table"] == name]
        if own:
            head = f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"
            lines += [f"## {name}", "", *head, *map(line, own), ""]
    return lines


def measured_on(rows: Sequence[Found]) -> list[str]:
    """A line for each machine that rows are of."""
    return [f"Measured on {on}." for on in dict.fromkeys(row["measured_on"] for row in rows)]


def counted_images(rows: Sequence[Found]) -> str:
    """Number of images per row, or all of them."""
    counts = sorted({one["context"]["images"] for one in rows})
    return " or ".join(f"{count:,}" for count in counts)


HOW_MEASURED = (
    "Distances to the original are measured against its images of the same prompts and seeds, with "
    "an interval by a jackknife over ten groups of images; the other intervals are 95% bootstrap."
)
