"""The course of a training, as a value and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mezzotint._files import JsonFile, check_storable, validated
from mezzotint.errors import JournalError, MezzotintError


@dataclass(frozen=True)
class Point:
    """Means over the updates since the point before.

    Attributes:
        update: updates up to here.
        minutes: of training up to here.
        loss: ‖y - ŷ‖²/‖y‖² of the guided output.
        feature_loss: λ times the feature loss, in the same unit; None where there is none.
        ratio: norm of the feature loss's gradient over that of the main loss's, at one update;
            None where there is no feature loss.
    """

    update: int
    minutes: float
    loss: float
    feature_loss: float | None = None
    ratio: float | None = None


class _CurveModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    updates: int
    minutes: float
    options: dict[str, Any]
    points: list[Point]


@dataclass(frozen=True)
class Curve(JsonFile):
    """The course of a training.

    Attributes:
        updates: made.
        minutes: that they took.
        options: of the training, JSON values.
        points: rising.
    """

    error: ClassVar[type[MezzotintError]] = JournalError

    updates: int = 0
    minutes: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return asdict(self) | {"points": [asdict(point) for point in self.points]}

    @classmethod
    def from_dict(cls, value: Any, source: str = "curve") -> Curve:
        """Validate and build.

        Raises:
            JournalError: naming `source` and the field at fault.
        """
        check_storable(value, source, JournalError)
        found = validated(_CurveModel, value, source, JournalError)
        return cls(found.updates, found.minutes, found.options, tuple(found.points))
