"""The place that a training has come to, and its figures so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mezzotint.training.curve import Point


@dataclass(frozen=True)
class Sums:
    """Sums over updates since the last point of the curve, of the figures that a point has."""

    updates: int = 0
    loss: float = 0.0
    feature_loss: float | None = None
    ratio: float | None = None

    def plus(self, loss: float, feature_loss: float | None, ratio: float | None) -> Sums:
        """The sums with one more update."""
        features = self.feature_loss
        if feature_loss is not None:
            features = (features or 0.0) + feature_loss
        return Sums(
            self.updates + 1, self.loss + loss, features, self.ratio if ratio is None else ratio
        )


@dataclass(frozen=True)
class Position:
    """The place that a training has come to.

    Attributes:
        updates: made.
        minutes: that they took.
        trajectory: index of the one under way.
        losses: relative losses of its steps so far.
        start: relative loss of the very first step; None before it.
        first: mean relative loss of the first trajectory; None before its end.
        sums: since the last point of the curve.
        points: of the curve.
    """

    updates: int = 0
    minutes: float = 0.0
    trajectory: int = 0
    losses: tuple[float, ...] = ()
    start: float | None = None
    first: float | None = None
    sums: Sums = Sums()
    points: tuple[Point, ...] = ()

    def with_point(self) -> Position:
        """The same place, with a point of the curve that stands for the sums."""
        sums, count = self.sums, self.sums.updates
        features = None if sums.feature_loss is None else sums.feature_loss / count
        point = Point(self.updates, self.minutes, sums.loss / count, features, sums.ratio)
        return replace(self, sums=Sums(), points=(*self.points, point))

    @property
    def figures(self) -> str:
        """Mean losses since the last point, and the speed, for people."""
        sums, rate = self.sums, self.updates / max(self.minutes * 60, 1e-9)
        part = "" if not sums.feature_loss else f", features {sums.feature_loss / sums.updates:.4f}"
        return f"loss {sums.loss / sums.updates:.4f}{part}, {rate:.2f} updates/s"
