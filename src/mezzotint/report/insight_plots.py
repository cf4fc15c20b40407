"""Box plots and stacked bars as inline SVG, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mezzotint.report.drawing import drawn
from mezzotint.report.page import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METHOD_COLOURS = {
    "K-Means 3 bits": "#2166ac",
    "K-Means 4 bits": "#92c5de",
    "uniform 3 bits": "#b2182b",
    "uniform 4 bits": "#f4a582",
}


@dataclass(frozen=True, eq=False)
class BoxPlot:
    """Distributions side by side.

    Attributes:
        name: of its table's file.
        title: for people.
        axis: what the values are.
        groups: label → values.
    """

    name: str
    title: str
    axis: str
    groups: Mapping[str, ArrayLike]

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row per box: count, quartiles and whiskers."""
        return [{"group": label, **_box(values)} for label, values in self.groups.items()]

    def svg(self) -> str:
        """The picture, to stand in a page."""
        boxes = [
            {
                "label": row["group"],
                "q1": row["first_quartile"],
                "med": row["median"],
                "q3": row["third_quartile"],
                "whislo": row["lowest_within"],
                "whishi": row["highest_within"],
            }
            for row in self.table
        ]

        def draw(axes: Axes) -> None:
            axes.bxp(boxes, orientation="horizontal", showfliers=False)
            axes.grid(axis="x", color="#e5e5e5")

        return _svg(self, draw)


@dataclass(frozen=True, eq=False)
class StackedBars:
    """Shares that add up to one, a bar per group.

    Attributes:
        name: of its table's file.
        title: for people.
        axis: what the shares are of.
        groups: label → part → share.
    """

    name: str
    title: str
    axis: str
    groups: Mapping[str, Mapping[str, float]]

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row per bar, a column per part."""
        return [
            {"group": label} | {part: shares.get(part, 0.0) for part in self._parts}
            for label, shares in self.groups.items()
        ]

    @property
    def _parts(self) -> list[str]:
        return sorted({part for shares in self.groups.values() for part in shares})

    def svg(self) -> str:
        """The picture, to stand in a page."""

        def draw(axes: Axes) -> None:
            labels, left = list(self.groups), np.zeros(len(self.groups))
            spare = list(COLOURS.values())
            for index, part in enumerate(self._parts):
                shares = np.array([self.groups[label].get(part, 0.0) for label in labels])
                colour = _METHOD_COLOURS.get(part, spare[index % len(spare)])
                axes.barh(labels, shares, left=left, label=part, color=colour)
                left += shares
            axes.set_xlim(0, 1)
            axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False)

        return _svg(self, draw)


Picture = BoxPlot | StackedBars


def _box(values: ArrayLike) -> dict[str, float]:
    """Tukey's box: whiskers end at the last values within 1.5 interquartile ranges."""
    given = np.asarray(values, dtype=np.float64)
    low, middle, high = map(float, np.quantile(given, [0.25, 0.5, 0.75]))
    reach = 1.5 * (high - low)
    within = given[(given >= low - reach) & (given <= high + reach)]
    return {
        "count": len(given),
        "lowest": float(given.min()),
        "lowest_within": float(within.min()),
        "first_quartile": low,
        "median": middle,
        "third_quartile": high,
        "highest_within": float(within.max()),
        "highest": float(given.max()),
    }


def _svg(picture: Picture, draw: Callable[[Axes], None]) -> str:
    """The picture as an SVG element."""

    def fill(figure: Figure) -> None:
        axes = figure.subplots()
        draw(axes)
        axes.invert_yaxis()
        axes.set_xlabel(picture.axis)

    return drawn(picture.name, (9, 1.1 + 0.28 * len(picture.groups)), fill, "insights")


def tables(pictures: Sequence[Picture]) -> dict[str, list[dict[str, Any]]]:
    """File name → rows, of every picture."""
    return {f"{picture.name}.csv": picture.table for picture in pictures}
