"""The tables of benchmarks/qua2sedimo.py as Markdown, and what becomes of the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .image_table import (
    FIGURES,
    HOW_MEASURED,
    counted_images,
    figure_cells,
    measured_on,
    spread,
    tables,
)
from .kept_rows import Found
from .qua2sedimo_rows import (
    AUTO,
    AUTO_BARE,
    AUTO_SIX,
    BLOCK,
    EVERYTHING,
    FLOAT,
    OP,
    OURS,
    PUBLISHED,
    TABLES,
)

TITLES = (
    *("model", "bits asked for", "plan"),
    *FIGURES,
    *("stored bits", "stored bytes"),
)

CANNOT = "cannot be met"


def markdown(rows: Sequence[Found]) -> str:
    """A table for each of those that have rows, then the targets."""
    lines = [*tables(rows, TABLES, TITLES, line), "## Targets", "", *targets(rows), ""]
    return "\n".join(lines + notes(rows)) + "\n"


def line(one: Found) -> str:
    first = (one["model"], one["setting"], one["plan"])
    if one["fd_lite0"] is None:
        return f"| {' | '.join((*first, CANNOT, *[''] * (len(TITLES) - 4)))} |"
    cells = (
        *first,
        *figure_cells(one),
        f"{one['stored_bits']:.3f}",
        f"{one['denoiser_bytes']:,}",
    )
    return f"| {' | '.join(cells)} |"


def targets(rows: Sequence[Found]) -> Iterator[str]:
    """A line for each target in each setting whose rows are there."""
    found = {
        (one["model"], one["setting"], one["plan"]): one
        for one in rows
        if one["table"] == "main" and one["fd_lite0"] is not None
    }
    for model, setting in dict.fromkeys(place[:2] for place in found if place[2] != FLOAT):
        own = {plan: one for (m, s, plan), one in found.items() if (m, s) == (model, setting)}
        original = next((one for (m, _, p), one in found.items() if (m, p) == (model, FLOAT)), None)
        where = f"{model}, {setting}"
        published = [own[plan] for plan in PUBLISHED if plan in own]
        if OURS in own and published:
            best = min(published, key=_distance)
            yield _judged(
                f"{where}: ours with six choices over the best published row ({best['plan']})",
                _distance(own[OURS]) / _distance(best), 0.9,
            )  # fmt: skip
        for other, means in ((AUTO_BARE, "and nothing else"), (AUTO_SIX, "and all other means")):
            if OURS in own and other in own:
                yield _judged(
                    f"{where}: ours with six choices over auto with the same six {means}",
                    _distance(own[OURS]) / _distance(own[other]), 1.0,
                )  # fmt: skip
        if EVERYTHING in own and AUTO in own:
            ratio = _distance(own[EVERYTHING]) / _distance(own[AUTO])
            yield _judged(f"{where}: ours with everything over auto", ratio, 0.7)
        if EVERYTHING in own and original is not None and original["fd_real"]:
            ratio = own[EVERYTHING]["fd_real"] / original["fd_real"]
            text = f"{where}: distance of ours with everything to real pictures over the original's"
            yield _judged(text, ratio, 1.05)
        if OP in own and BLOCK in own:
            apart = (own[OP]["fd_interval"], own[BLOCK]["fd_interval"])
            yield f"- {where}: op level {_shown(apart[0])}, block level {_shown(apart[1])}"


def _judged(text: str, value: float, limit: float) -> str:
    met = "met" if value <= limit else "missed"
    return f"- {text}: {value:.3f}, at most {limit:g}: {met}"


def _distance(one: Found) -> float:
    return float(one["fd_lite0"])


def _shown(interval: dict[str, Any]) -> str:
    return spread(interval, 2)


def notes(rows: Sequence[Found]) -> list[str]:
    measured = [one for one in rows if one["fd_lite0"] is not None]
    if not measured:
        return []
    context = measured[0]["context"]
    return [
        f"{counted_images(measured)} images per row, seeds {context['seed']} "
        "and following, each model at its default steps; labels are of other seeds. One method "
        f"alone: 3 and 4 bits mixed at random to the budget, mean of three seeds. {HOW_MEASURED} "
        "Stored bits are those of the layers' weights, codebooks and scales included; stored bytes "
        f"are of the whole denoiser. Torch {context['torch']}, {context['device']}.",
        "",
        *measured_on(measured),
    ]
