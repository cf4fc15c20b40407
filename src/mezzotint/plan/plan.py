"""The plan: everything that decides the stored bytes, as a value and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, StrictInt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mezzotint._files import JsonFile, check_storable, validated
from mezzotint._tables import html_table
from mezzotint.errors import FormatError, MezzotintError, PlanError, UsageError
from mezzotint.plan.calibration_settings import CalibrationModel, CalibrationSettings
from mezzotint.plan.choice import Choice
from mezzotint.plan.choice_json import LayerModel, choice_of
from mezzotint.plan.encoding import Encoding, EncodingModel
from mezzotint.plan.simulated_attention import SimulatedAttention, SimulatedAttentionModel

VERSION = 4

#: Version 1 said nothing of encodings and calibration: what it meant are their defaults. Until
#: version 2, scales per channel were float32. Until version 3, constant tokens were taken on trust.
_READABLE = (1, 2, 3, VERSION)

NAMES_SINCE = 3
"""Version since which names of formats mean what they do."""

_SIMULATED_SINCE = 3


class _PlanModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: StrictInt
    model: str | None = None
    encoding: EncodingModel | None = None
    calibration: CalibrationModel | None = None
    simulated_attention: SimulatedAttentionModel | None = None
    components: tuple[str, ...] = ()
    layers: dict[str, LayerModel]
    context: dict[str, Any] = {}


@dataclass(frozen=True)
class Plan(JsonFile):
    """Everything that decides the stored bytes, given the weights and the recorded calls.

    Attributes:
        choices: layer name → choice, in the model's order.
        model: what the plan was made for, as the user named it.
        reasons: why a layer has the choice it has, where that is worth saying (kept in floating
            point because …).
        context: recipe, budget, seeds, versions: how the plan came to be. JSON values only.
        encoding: how weights are rounded.
        encodings: quantized layer → how its weight is rounded, where that differs from `encoding`.
        calibration: how constant outputs and static ranges were found, where layers have any.
        simulated_attention: to what queries, keys, values and probabilities are rounded; None for
            nothing. It decides no stored bytes, but what is computed.
        components: of a pipeline, where the plan is of several: names of layers then begin with
            that of their component and a dot. None for the plan of one model.

    Raises:
        PlanError: a layer that is not quantized has an encoding of its own; or, with components, a
            layer is of none of them.
    """

    error: ClassVar[type[MezzotintError]] = PlanError

    choices: Mapping[str, Choice]
    model: str | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding = field(default_factory=Encoding)
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    calibration: CalibrationSettings | None = None
    simulated_attention: SimulatedAttention | None = None
    components: tuple[str, ...] = ()

    FILE: ClassVar[str] = "plan.json"

    def __post_init__(self) -> None:
        for name in self.encodings:
            if name not in self.choices or not self.choices[name].quantized:
                raise PlanError(
                    f"layer {name}: encoding: goes with a quantized weight; leave it out"
                )
        for name in self.choices if self.components else ():
            if name.partition(".")[0] not in self.components:
                raise PlanError(
                    f"layer {name}: is of none of the plan's components "
                    f"({', '.join(self.components)}); its name begins with that of its component"
                )
        # A layer that is told what all are told is no exception: equal plans, equal files.
        other = {name: each for name, each in self.encodings.items() if each != self.encoding}
        object.__setattr__(self, "encodings", other)

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

    @property
    def trained(self) -> tuple[str, ...]:
        """Quantized layers whose weights stand in the plan's checkpoint only."""
        return tuple(name for name in self.quantized if self.encoding_of(name).trained)

    @property
    def steps(self) -> int:
        """Timesteps that layers store a scale for; 0 where none does."""
        return max((choice.steps for choice in self.choices.values()), default=0)

    def encoding_of(self, name: str) -> Encoding:
        """Rounding of a quantized layer's weight."""
        return self.encodings.get(name, self.encoding)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        settings, attention = self.calibration, self.simulated_attention
        return {
            "version": VERSION,
            "model": self.model,
            "encoding": self.encoding.to_dict(),
            **({} if settings is None else {"calibration": settings.to_dict()}),
            **({} if attention is None else {"simulated_attention": attention.to_dict()}),
            **({"components": list(self.components)} if self.components else {}),
            "layers": {name: self._layer(name) for name in self.choices},
            "context": dict(self.context),
        }

    def _layer(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = dict(self.choices[name].to_dict())
        if name in self.encodings:
            value["encoding"] = self.encodings[name].to_dict(self.encoding)
        if name in self.reasons:
            value["reason"] = self.reasons[name]
        return value

    @classmethod
    def from_dict(cls, value: Any, source: str = "plan") -> Plan:
        """Validate and build.

        Raises:
            PlanError: naming `source`, the field at fault and what was expected.
        """
        check_storable(value, source, PlanError)
        model = validated(_PlanModel, value, source, PlanError)
        _check_version(model, source)
        try:
            encoding = (model.encoding or EncodingModel()).value(Encoding())
        except FormatError as cause:
            raise PlanError(f"{source}: field encoding: {cause}") from cause
        choices: dict[str, Choice] = {}
        encodings: dict[str, Encoding] = {}
        for name, layer in model.layers.items():
            choices[name] = choice_of(layer, name, source, model.version)
            try:
                if layer.encoding is not None:
                    encodings[name] = layer.encoding.value(encoding)
            except FormatError as cause:
                raise PlanError(f"{source}: layer {name}: {cause}") from cause
        try:
            calibration = None if model.calibration is None else model.calibration.value()
        except UsageError as cause:
            raise PlanError(f"{source}: field calibration: {cause}") from cause
        reasons = {name: layer.reason for name, layer in model.layers.items() if layer.reason}
        attention = model.simulated_attention
        try:
            return cls(
                choices=choices,
                model=model.model,
                reasons=reasons,
                context=model.context,
                encoding=encoding,
                encodings=encodings,
                calibration=calibration,
                simulated_attention=None if attention is None else attention.value(),
                components=model.components,
            )
        except (PlanError, FormatError) as cause:
            raise PlanError(f"{source}: {cause}") from cause

    def table(self) -> Table:
        """A row per layer."""
        table = Table(title=self._title)
        # Names are searched for and copied, so they stay on one line; reasons fold.
        for column in ("layer", *self._columns):
            table.add_column(column, no_wrap=True)
        table.add_column("reason", overflow="fold")
        for name in self.choices:
            cells = (name, *self._cells(name), self.reasons.get(name, ""))
            table.add_row(*map(escape, cells))
        return table

    def summary(self) -> Table:
        """Count of layers per choice, with their rounding and calibration."""
        counts = Counter(map(self._cells, self.choices))
        table = Table(title=self._title, caption=self._caption, caption_justify="left")
        for column in (*self._columns, "layers"):
            table.add_column(column, justify="right" if column == "layers" else "left")
        for cells, count in sorted(counts.items()):
            table.add_row(*cells, str(count))
        return table

    @property
    def _columns(self) -> tuple[str, ...]:
        """Structures and encodings of layers are shown where one of them has its own."""
        structured = any(choice.structures for choice in self.choices.values())
        return (
            *("weight", "activation"),
            *(["structures"] if structured else []),
            *(["encoding"] if self.encodings else []),
        )

    def _cells(self, name: str) -> tuple[str, ...]:
        choice = self.choices[name]
        encoding = str(self.encoding_of(name)) if choice.quantized else ""
        values = {
            "weight": choice.weight_label,
            "activation": choice.activation,
            "structures": choice.label,
            "encoding": encoding,
        }
        return tuple(values[column] for column in self._columns)

    @property
    def _caption(self) -> str | None:
        """Rounding and calibration of all layers, and what is simulated beside them."""
        lines = []
        if self.quantized:
            otherwise = " where not stated otherwise" if self.encodings else ""
            lines.append(f"encoding{otherwise}: {self.encoding}")
        if self.quantized and self.calibration is not None:
            lines.append(f"calibration: {self.calibration}")
        if self.simulated_attention is not None:
            lines.append(f"attention, simulated: {self.simulated_attention}")
        return escape("\n".join(lines)) or None

    @property
    def _title(self) -> str:
        return f"Plan for {escape(self.model or 'a model')}: {len(self)} layers"

    def __repr__(self) -> str:
        model = "" if self.model is None else f" for {self.model}"
        return f"<Plan{model}: {len(self.quantized)} of {len(self)} layers quantized>"

    def _repr_html_(self) -> str:
        return html_table(self.summary(), repr(self))

    def __str__(self) -> str:
        # Reasons fold beside names that do not: with a narrow column, over dozens of lines.
        console = Console(width=160 if self.reasons else 120, color_system=None)
        with console.capture() as capture:
            console.print(self.table())
            console.print(self.summary())
        return capture.get().rstrip()


def _check_version(model: _PlanModel, source: str) -> None:
    if model.version not in _READABLE:
        known = f"{', '.join(map(str, _READABLE[:-1]))} and {VERSION}"
        raise PlanError(f"{source}: field version: is {model.version}, this program reads {known}")
    if model.version < _SIMULATED_SINCE and model.simulated_attention is not None:
        raise PlanError(
            f"{source}: field simulated_attention: goes with version {_SIMULATED_SINCE} and later, "
            f"not with {model.version}"
        )
    if model.version > 1:
        return
    later: list[str] = []
    later += [name for name in ("encoding", "calibration") if name in model.model_fields_set]
    later += [
        f"layers.{name}.encoding"
        for name, layer in model.layers.items()
        if "encoding" in layer.model_fields_set
    ]
    if later:
        raise PlanError(f"{source}: field {later[0]}: goes with version 2 and later, not with 1")


def dumps(plan: Plan) -> str:
    """The plan as a JSON string."""
    return json.dumps(plan.to_dict(), ensure_ascii=False)
