"""Picture of a sweep: size against quality, and against latency where that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mezzotint.report.drawing import drawn
from mezzotint.report.page import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mezzotint.sweeping import Sweep

_MEASURED, _PREDICTED = COLOURS["2"], COLOURS["8"]
_MEGA = 1e6


def sweep_picture(sweep: Sweep) -> str:
    """The curve as SVG.

    Raises:
        UsageError: matplotlib is not installed.
    """
    timed = sweep.floating_ms is not None

    def draw(figure: Figure) -> None:
        rows = figure.subplots(2 if timed else 1, sharex=True, squeeze=False)[:, 0]
        _draw_quality(rows[0], sweep)
        if timed:
            _draw_latency(rows[1], sweep)
        floating = f"floating: {sweep.floating_bytes / _MEGA:.1f}"
        rows[-1].set_xlabel(f"MB of the {sweep.subject} ({floating})")
        for axes in rows:
            axes.grid(color="#e5e5e5")

    return drawn("sweep", (7, 6.2 if timed else 3.8), draw, "sweep")


def _draw_quality(axes: Axes, sweep: Sweep) -> None:
    sizes = [point.denoiser_bytes / _MEGA for point in sweep.points]
    curves = {
        "measured": ([p.measured_sqnr_db for p in sweep.points], _MEASURED, "o-"),
        "predicted": ([p.predicted_sqnr_db for p in sweep.points], _PREDICTED, "x--"),
    }
    for label, (values, colour, style) in curves.items():
        known = [(x, y) for x, y in zip(sizes, values, strict=True) if y is not None]
        if known:
            axes.plot(*zip(*known, strict=True), style, color=colour, label=label)
    for x, point in zip(sizes, sweep.points, strict=True):
        y = point.predicted_sqnr_db if point.measured_sqnr_db is None else point.measured_sqnr_db
        if y is not None:
            axes.annotate(
                point.label, (x, y), xytext=(6, -12), textcoords="offset points", fontsize=8
            )
    axes.margins(x=0.09, y=0.12)  # for the labels
    axes.set_title(f"{sweep.model}, inputs of {sweep.act_bits:g} bits")
    axes.set_ylabel("SQNR of the output, dB")
    axes.legend(frameon=False, loc="lower right")


def _draw_latency(axes: Axes, sweep: Sweep) -> None:
    known = [
        (point.denoiser_bytes / _MEGA, point.latency_ms)
        for point in sweep.points
        if point.latency_ms is not None
    ]
    axes.plot(*zip(*known, strict=True), "o-", color=_MEASURED, label="predicted")
    assert sweep.floating_ms is not None
    axes.axhline(sweep.floating_ms, color=COLOURS["float"], linestyle="--", label="floating")
    axes.set_ylabel("ms a call, predicted")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
