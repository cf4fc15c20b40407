"""Finished rows of a benchmark, in a file that is whole after each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint._files import write_json

Found = dict[str, Any]


@dataclass
class Kept:
    """Finished rows.

    Attributes:
        path: of the JSON file; the table stands beside it.
        order: places of all rows there are.
        markdown: the table of some rows.
    """

    path: Path
    order: list[tuple[str, ...]]
    markdown: Callable[[Sequence[Found]], str]

    def __post_init__(self) -> None:
        found = json.loads(self.path.read_text()) if self.path.exists() else []
        # Rows that there are no more have no place in the table.
        self.rows: list[Found] = [one for one in found if place_of(one) in self.order]

    def drop_others(self, model: str, weights: str) -> None:
        """Rows of another training of the model do not belong into one table."""
        self.rows = [one for one in self.rows if one["model"] != model or one["weights"] == weights]

    def has(self, place: Sequence[str], images: int, asked: Found) -> bool:
        """True where the row was made with as many images, by the same options."""
        found = self.at(place)
        return (
            found is not None and found["context"]["images"] == images and found["asked"] == asked
        )

    def at(self, place: Sequence[str]) -> Found | None:
        return next((one for one in self.rows if place_of(one) == tuple(place)), None)

    def add(self, found: Found) -> None:
        """Add or replace one."""
        self.rows = [one for one in self.rows if place_of(one) != place_of(found)] + [found]
        self.rows.sort(key=lambda one: self.order.index(place_of(one)))
        write_json(self.path, self.rows)
        self.path.with_suffix(".md").write_text(self.markdown(self.rows), "utf-8")


def place_of(one: Found) -> tuple[str, ...]:
    return one["model"], one["table"], one["setting"], one["plan"]
