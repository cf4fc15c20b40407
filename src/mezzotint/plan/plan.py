"""The plan: the choice of every layer, as a value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mezzotint._files import read_json, validated, write_json
from mezzotint.errors import PlanError
from mezzotint.plan.choice import Choice
from mezzotint.plan.choice_json import LayerModel, choice_of

VERSION = 1


class _PlanModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: int
    model: str | None = None
    layers: dict[str, LayerModel]
    context: dict[str, Any] = {}


@dataclass(frozen=True)
class Plan:
    """The choice of every layer.

    Attributes:
        choices: layer name → choice, in the model's order.
        model: what the plan was made for, as the user named it.
        reasons: why a layer has the choice it has, where that is worth saying (kept in floating
            point because …).
        context: recipe, budget, seeds, versions: how the plan came to be. JSON values only.
    """

    choices: Mapping[str, Choice]
    model: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    FILE: ClassVar[str] = "plan.json"

    def __getitem__(self, name: str) -> Choice:
        return self.choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)

    @property
    def quantized(self) -> dict[str, Choice]:
        """The layers whose weight is stored in a quantized format."""
        return {name: choice for name, choice in self.choices.items() if choice.quantized}

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        layers = {
            name: choice.to_dict()
            | ({"reason": self.reasons[name]} if name in self.reasons else {})
            for name, choice in self.choices.items()
        }
        return {
            "version": VERSION,
            "model": self.model,
            "layers": layers,
            "context": dict(self.context),
        }

    @classmethod
    def from_dict(cls, value: Any, source: str = "plan") -> Plan:
        """Validate and build.

        Raises:
            PlanError: naming `source`, the field at fault and what was expected.
        """
        model = validated(_PlanModel, value, source, PlanError)
        if model.version != VERSION:
            raise PlanError(
                f"{source}: field version: is {model.version}, this program reads {VERSION}"
            )
        choices = {name: choice_of(layer, name, source) for name, layer in model.layers.items()}
        reasons = {name: layer.reason for name, layer in model.layers.items() if layer.reason}
        return cls(choices=choices, model=model.model, reasons=reasons, context=model.context)

    def save(self, path: str | Path) -> None:
        """Write as JSON that a person can read and edit."""
        write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read what `save` wrote.

        Raises:
            PlanError: the file is missing, not JSON, or not a plan.
        """
        return cls.from_dict(read_json(Path(path), PlanError), str(path))

    def table(self) -> Table:
        """A row per layer."""
        table = Table(title=self._title)
        # Names are searched for and copied, so they stay on one line; reasons fold.
        for column in ("layer", *self._columns):
            table.add_column(column, no_wrap=True)
        table.add_column("reason", overflow="fold")
        for name, choice in self.choices.items():
            cells = (name, *self._cells(choice), self.reasons.get(name, ""))
            table.add_row(*map(escape, cells))
        return table

    def summary(self) -> Table:
        """How many layers take each choice."""
        counts: dict[Choice, int] = {}
        for choice in self.choices.values():
            counts[choice] = counts.get(choice, 0) + 1
        table = Table(title=self._title)
        for column in (*self._columns, "layers"):
            table.add_column(column, justify="right" if column == "layers" else "left")
        for choice, count in sorted(counts.items(), key=lambda item: str(item[0])):
            table.add_row(*self._cells(choice), str(count))
        return table

    @property
    def _columns(self) -> tuple[str, ...]:
        """The structures of layers are shown where one of them has any."""
        structured = any(choice.structures for choice in self.choices.values())
        return ("weight", "activation", "structures") if structured else ("weight", "activation")

    def _cells(self, choice: Choice) -> tuple[str, ...]:
        return (choice.weight, choice.activation, choice.label)[: len(self._columns)]

    @property
    def _title(self) -> str:
        return f"Plan for {escape(self.model or 'a model')}: {len(self)} layers"

    def __str__(self) -> str:
        # Reasons fold beside names that do not: with a narrow column, over dozens of lines.
        console = Console(width=160 if self.reasons else 120, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
            console.print(self.summary())
        return capture.get().rstrip()


@dataclass(frozen=True)
class Difference:
    """One layer on which two plans disagree; None where a plan lacks the layer."""

    layer: str
    left: Choice | None
    right: Choice | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values: choices as they stand in plans."""
        sides = {"left": self.left, "right": self.right}
        found = {side: None if c is None else c.to_dict() for side, c in sides.items()}
        return {"layer": self.layer, **found}


def diff(left: Plan, right: Plan) -> tuple[Difference, ...]:
    """Every layer on which the two plans differ, in the left plan's order."""
    names = [*left.choices, *(name for name in right.choices if name not in left.choices)]
    return tuple(
        Difference(name, left.choices.get(name), right.choices.get(name))
        for name in names
        if left.choices.get(name) != right.choices.get(name)
    )


def dumps(plan: Plan) -> str:
    """The plan as a JSON string."""
    return json.dumps(plan.to_dict(), ensure_ascii=False)
