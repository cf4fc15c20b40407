"""The course of a training as JSON."""

from pathlib import Path

import pytest

from mezzotint.errors import JournalError
from mezzotint.training import Curve, Point, Training

CURVE = Curve(
    20,
    1.5,
    {**Training(steps=20).to_dict()},
    (Point(10, 0.7, 0.5, 0.1, 0.2), Point(20, 1.5, 0.4)),
)


def test_it_is_read_as_it_was_written(tmp_path: Path):
    CURVE.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json") == CURVE


@pytest.mark.parametrize(
    ("change", "field"),
    [({"updates": "many"}, "updates"), ({"points": [{"update": 1}]}, "points.0"), ({"x": 1}, "x")],
)
def test_a_field_at_fault_is_named(change: dict[str, object], field: str):
    with pytest.raises(JournalError, match=f"curve: field {field}"):
        Curve.from_dict(CURVE.to_dict() | change)
