"""The tables of benchmarks/mpqdm.py as Markdown, and what becomes of the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .image_table import (
    FIGURES,
    HOW_MEASURED,
    counted_images,
    figure_cells,
    measured_on,
    tables,
)
from .kept_rows import Found
from .mpqdm_rows import (
    AUTO,
    EFFICIENTDM,
    FLOAT,
    NOT_TRAINED,
    OURS,
    PUBLISHED,
    TABLES,
    TEACHER,
    WITH_OMQ,
    WITH_TRD,
)

TITLES = (
    "model", "bits", "plan", "updates", "minutes", *FIGURES, "caption score", "nominal bits",
    "stored bits", "stored bytes",
)  # fmt: skip


def markdown(rows: Sequence[Found]) -> str:
    """A table for each of those that have rows, then the targets."""
    lines = [*tables(rows, TABLES, TITLES, line), "## Targets", "", *targets(rows), ""]
    return "\n".join(lines + notes(rows)) + "\n"


def line(one: Found) -> str:
    bits = one["bits"] or {}
    cells = (
        one["model"], one["setting"], one["plan"],
        f"{one['updates']:,}" if one["updates"] else "",
        f"{one['minutes']:.1f}" if one["updates"] else "",
        *figure_cells(one), f"{one['caption_score']:.2f}",
        *(f"{bits[name]:.3f}" if name in bits else "" for name in ("with_exceptions", "denoiser")),
        f"{one['denoiser_bytes']:,}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def notes(rows: Sequence[Found]) -> list[str]:
    if not rows:
        return []
    context = rows[0]["context"]
    return [
        f"{counted_images(rows)} images per row, seeds "
        f"{context['seed']} and following, each model at its default steps. Calibration and "
        "training have other prompts of the same list; torch "
        f"{context['torch']}, {context['device']}. {HOW_MEASURED} "
        "Caption score: like an Inception score, under the contrastive model. Nominal bits count "
        "widths, exceptions included; stored bits are all bytes of the denoiser over its layers' "
        "weights.",
        "",
        *measured_on(rows),
    ]


@dataclass(frozen=True)
class Target:
    """One thing that was aimed at.

    Attributes:
        text: in words.
        rows: names of the rows in table and setting that it compares.
        table: of each row.
        setting: of all of them.
        figure: what is compared, from those rows.
        met: whether that will do.
    """

    text: str
    rows: tuple[tuple[str, str], ...]
    setting: str
    figure: Callable[..., float]
    met: Callable[[float], bool]


def _ratio(one: Found, other: Found) -> float:
    return float(one["fd_interval"]["value"] / other["fd_interval"]["value"])


def _gap(better: Found, worse: Found) -> float:
    """Room between two intervals of the distance; below 0 they overlap."""
    return float(worse["fd_interval"]["low"] - better["fd_interval"]["high"])


def _precision(one: Found, original: Found) -> float:
    return float(one["r_precision"]["value"] / original["r_precision"]["value"])


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _at_least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


def _in_main(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple(("main", name) for name in names)


TARGETS = (
    Target("(a) distance of MPQ-DM over EfficientDM's, W2A4: at most 0.42",
           _in_main(PUBLISHED, EFFICIENTDM), "W2A4", _ratio, _at_most(0.42)),
    Target("(b) distance with OMQ below that without, W2A4, by more than both intervals",
           _in_main(WITH_OMQ, EFFICIENTDM), "W2A4", _gap, _at_least(0)),
    Target("(b) distance with TRD below that without, W2A4, by more than both intervals",
           _in_main(WITH_TRD, EFFICIENTDM), "W2A4", _gap, _at_least(0)),
    Target("(c) distance of ours over MPQ-DM's, W2A4: at most 0.5",
           _in_main(OURS, PUBLISHED), "W2A4", _ratio, _at_most(0.5)),
    Target("(c) distance of ours over auto's, W2A4: at most 0.7",
           _in_main(OURS, AUTO), "W2A4", _ratio, _at_most(0.7)),
    Target("(d) R-precision of ours over the original's, W3A6: at least 0.9",
           _in_main(OURS, FLOAT), "W3A6", _precision, _at_least(0.9)),
    Target("(d) R-precision of ours over the original's, W2A4: at least 0.5",
           _in_main(OURS, FLOAT), "W2A4", _precision, _at_least(0.5)),
    Target("(e) distance of ours over that of the same quantizers not trained, W2A4: at most 0.8",
           (("main", OURS), ("beyond", NOT_TRAINED)), "W2A4", _ratio, _at_most(0.8)),
)  # fmt: skip


def targets(rows: Sequence[Found]) -> Iterator[str]:
    """A line for each target whose rows are there."""
    by_place = {
        (one["table"], one["plan"], one["setting"]): one for one in rows if one["model"] == TEACHER
    }
    for target in TARGETS:
        found = [by_place.get((table, name, target.setting)) for table, name in target.rows]
        if any(one is None for one in found):
            yield f"- {target.text}: not measured"
            continue
        value = target.figure(*found)
        yield f"- {target.text}: {value:.3f}, {'met' if target.met(value) else 'missed'}"
