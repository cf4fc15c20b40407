"""The HTML report: one self-contained page that shows what was chosen and why."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from mezzotint._files import replacing
from mezzotint.formats import FLOAT
from mezzotint.report.layer_table import LayerRow, role_rows

#: Colour of each width, from cold (few bits) to warm (many).
COLOURS = {
    "1": "#08306b", "2": "#2166ac", "3": "#4393c3", "4": "#92c5de", "5": "#f4c7a5",
    "6": "#f4a582", "7": "#e07b5f", "8": "#d6604d", "float": "#999999",
}  # fmt: skip


@dataclass(frozen=True)
class ReportedModel:
    """One model of the comparison: its name and its figures by column title."""

    name: str
    figures: Mapping[str, str]


@dataclass(frozen=True)
class Report:
    """Everything the page shows.

    Attributes:
        title: heading.
        layers: a row per layer.
        models: the comparison table; the original first.
        pictures: same prompts through every model, if any were made.
        prompts: of the pictures, in column order.
        context: seeds, sample counts, versions, device: how the figures came about.
    """

    title: str
    layers: Sequence[LayerRow]
    models: Sequence[ReportedModel] = ()
    pictures: Image.Image | None = None
    prompts: Sequence[str] = ()
    context: Mapping[str, Any] = field(default_factory=dict)


def render(report: Report) -> str:
    """The page as HTML; pictures are inlined, nothing is fetched."""
    measured = list(dict.fromkeys(name for row in report.layers for name in row.measured))
    fullest_first = sorted(report.models, key=lambda one: -len(one.figures))
    columns = dict.fromkeys(title for one in fullest_first for title in one.figures)
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            roles=role_rows(report.layers),
            measured=measured,
            columns=list(columns),
            colours=COLOURS,
            picture=None if report.pictures is None else _data_url(report.pictures),
        )
    )


def environment() -> Environment:
    """Templates of pages, with the filters that they use; a name that is none is an error."""
    found = Environment(
        loader=PackageLoader("mezzotint.report"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["decibels"] = _decibels
    found.filters["colour"] = _colour
    return found


def save_report(report: Report, path: str | Path) -> Path:
    """Write the page, complete or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(render(report), "utf-8")
    return path


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _colour(width: str) -> str:
    """Layers of several widths take the colour of the one nearest to their average."""
    nearest = width if width == FLOAT else str(round(float(width)))
    return COLOURS.get(nearest, COLOURS[FLOAT])


def _decibels(value: float | None) -> str:
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.1f}"
