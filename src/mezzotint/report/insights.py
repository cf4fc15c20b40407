"""The page of insights: which layers and blocks matter, and which published findings hold here."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint._files import check_no_file, is_taken
from mezzotint._folders import replacing_folder
from mezzotint.errors import UsageError
from mezzotint.report.findings import Finding
from mezzotint.report.insight_plots import BoxPlot, Picture, StackedBars, tables
from mezzotint.report.page import environment
from mezzotint.report.scored_layers import Floats, ScoredLayers

PAGE = "insights.html"

FINDINGS = "findings.csv"


@dataclass(frozen=True)
class Insights:
    """Everything the page shows.

    Attributes:
        title: heading.
        about: one line on what the scores are of.
        findings: published ones, judged.
        pictures: in order.
        context: how the figures came about.
    """

    title: str
    about: str
    findings: Sequence[Finding]
    pictures: Sequence[Picture]
    context: Mapping[str, Any] = field(default_factory=dict)


def box_plots(layers: ScoredLayers, blocks: Mapping[str, Floats]) -> tuple[BoxPlot, ...]:
    """Distributions of scores by block, by kind of block, and by type of layer.

    Args:
        layers: scores of single choices.
        blocks: name of each block → scores of its variants, those of all folds together.
    """
    kind_of = dict(zip(layers.blocks, layers.kinds, strict=True))
    kinds: dict[str, list[Floats]] = {}
    for name, values in blocks.items():
        kinds.setdefault(kind_of[name], []).append(values)
    mean = layers.scores.mean(axis=0)
    roles = {role: mean[layers.places(role)].flatten() for role in dict.fromkeys(layers.roles)}
    axis = "score of a variant; the higher, the better"
    return (
        BoxPlot("scores-by-block", "Scores by block, in order of execution", axis, blocks),
        BoxPlot(
            "scores-by-block-type",
            "Scores by type of block",
            axis,
            {kind: np.concatenate(values) for kind, values in kinds.items()},
        ),
        BoxPlot(
            "scores-by-layer-type",
            "Scores by type of layer",
            "score of a format; the higher, the better",
            roles,
        ),
    )


def chosen_bars(layers: ScoredLayers, chosen: Sequence[int], title: str) -> StackedBars:
    """Shares of the weights of each type of layer by chosen method and bits.

    Args:
        layers: tell types and sizes.
        chosen: index of the format that each weight has.
        title: says in which configuration.
    """
    shares: dict[str, dict[str, float]] = {}
    sizes: dict[str, float] = {}
    for role, size in zip(layers.roles, layers.weights, strict=True):
        sizes[role] = sizes.get(role, 0.0) + float(size)
    for role, size, index in zip(layers.roles, layers.weights, chosen, strict=True):
        part = f"{layers.methods[index]} {layers.bits[index]:g} bits"
        own = shares.setdefault(role, {})
        own[part] = own.get(part, 0.0) + float(size) / sizes[role]
    return StackedBars("chosen-by-layer-type", title, "share of the weights", shares)


def render_insights(insights: Insights) -> str:
    """The page as HTML; pictures are inlined, nothing is fetched."""
    pictures = [(picture, picture.svg()) for picture in insights.pictures]
    return (
        environment().get_template("insights.html.j2").render(insights=insights, pictures=pictures)
    )


def check_insights_folder(folder: Path) -> None:
    """Refuse to replace other things than insights.

    Raises:
        UsageError: the folder is a file, or holds other things.
    """
    check_no_file(folder)
    if is_taken(folder) and not (folder / PAGE).is_file():
        raise UsageError(f"{folder}: holds something else than insights; name a new folder")


def save_insights(insights: Insights, folder: str | Path) -> Path:
    """Write the page and the tables behind it to a folder, complete or not at all.

    Raises:
        UsageError: the folder is a file, or holds other things, or matplotlib is not installed.
    """
    folder = Path(folder)
    check_insights_folder(folder)
    page = render_insights(insights)
    with replacing_folder(folder) as temporary:
        (temporary / PAGE).write_text(page, "utf-8")
        for name, rows in tables(insights.pictures).items():
            _write_table(temporary / name, rows)
        _write_table(temporary / FINDINGS, list(map(_row, insights.findings)))
    return folder / PAGE


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "claim": finding.claim,
        "judged_at": finding.judged_at,
        "statistic": finding.statistic,
        "difference_of_medians": finding.value,
        "low": finding.low,
        "high": finding.high,
        "layers_first": finding.layers[0],
        "layers_second": finding.layers[1],
        "verdict": finding.verdict,
        "reason": finding.reason,
    }


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
