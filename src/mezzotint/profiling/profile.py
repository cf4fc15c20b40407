"""The profile: milliseconds of every layer and choice, as a value and as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from mezzotint._files import JsonFile, validated
from mezzotint.errors import FormatError, MezzotintError, ProfileError
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice
from mezzotint.runtime.cpu.machine import Machine

VERSION = 1

# A year of them; sums stay finite.
_MOST = 4e10

_Milliseconds = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _FigureModel(_Strict):
    weight: str
    activation: str = FLOAT
    milliseconds: _Milliseconds
    kernel: str


class _LayerModel(_Strict):
    weight_shape: tuple[PositiveInt, ...]
    dtype: str
    runs: tuple[str, ...]
    choices: tuple[_FigureModel, ...]


class _MachineModel(_Strict):
    processor: str
    instructions: tuple[str, ...]
    threads: PositiveInt
    device: str
    torch: str
    mezzotint: str
    functions: str


class _ProfileModel(_Strict):
    version: int
    model: str | None = None
    denoiser: str
    batch: PositiveInt
    machine: _MachineModel
    milliseconds: Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False)]
    layers: dict[str, _LayerModel]


@dataclass(frozen=True)
class Figure:
    """Milliseconds of one denoiser call that go to one layer, and the kernel that computes it."""

    milliseconds: float
    kernel: str


@dataclass(frozen=True)
class LayerProfile:
    """One layer under all measured choices.

    Attributes:
        weight_shape: PyTorch's.
        dtype: of the floating weight, as `float32`.
        runs: what each run of it in one denoiser call is, in words.
        figures: choice → time of all its runs; the floating choice is always there.
    """

    weight_shape: tuple[int, ...]
    dtype: str
    runs: tuple[str, ...]
    figures: Mapping[Choice, Figure]

    @property
    def floating(self) -> float:
        """Milliseconds as it is."""
        return self.figures[Choice()].milliseconds


@dataclass(frozen=True)
class Profile(JsonFile):
    """One denoiser on one machine.

    Attributes:
        model: what the user calls it.
        denoiser: its class.
        batch: images per call.
        machine: where it was measured.
        milliseconds: one whole call of the floating denoiser.
        layers: layer → its figures, in the order of execution.
    """

    error: ClassVar[type[MezzotintError]] = ProfileError

    model: str | None
    denoiser: str
    batch: int
    machine: Machine
    milliseconds: float
    layers: Mapping[str, LayerProfile]

    @property
    def rest(self) -> float:
        """Milliseconds of a call that no choice changes: norms, attention, activations.

        The whole less its floating layers. Below 0 where layers take longer alone than among the
        others.
        """
        return self.milliseconds - math.fsum(layer.floating for layer in self.layers.values())

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Choices that every layer has a figure for, the floating one first."""
        layers = list(self.layers.values())
        common = [c for c in layers[0].figures if all(c in each.figures for each in layers)]
        return tuple(sorted(common, key=lambda choice: choice != Choice()))

    def total(self, choice: Choice) -> float:
        """Milliseconds of a whole call with all layers at one of `choices`."""
        return self.rest + sum(each.figures[choice].milliseconds for each in self.layers.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        layers = {
            name: {
                "weight_shape": list(layer.weight_shape),
                "dtype": layer.dtype,
                "runs": list(layer.runs),
                "choices": [
                    {"weight": choice.weight, "activation": choice.activation}
                    | dataclasses.asdict(figure)
                    for choice, figure in layer.figures.items()
                ],
            }
            for name, layer in self.layers.items()
        }
        return {
            "version": VERSION,
            "model": self.model,
            "denoiser": self.denoiser,
            "batch": self.batch,
            "machine": self.machine.to_dict(),
            "milliseconds": self.milliseconds,
            "layers": layers,
        }

    @classmethod
    def from_dict(cls, value: Any, source: str = "profile") -> Profile:
        """Validate and build.

        Raises:
            ProfileError: naming `source`, the field at fault and what was expected.
        """
        model = validated(_ProfileModel, value, source, ProfileError)
        if model.version != VERSION:
            raise ProfileError(
                f"{source}: field version: is {model.version}, this program reads {VERSION}"
            )
        if not model.layers:
            raise ProfileError(f"{source}: field layers: is empty; profile the model again")
        return cls(
            model=model.model,
            denoiser=model.denoiser,
            batch=model.batch,
            machine=Machine(**model.machine.model_dump()),
            milliseconds=model.milliseconds,
            layers={
                name: _layer(layer, f"{source}: layer {name}")
                for name, layer in model.layers.items()
            },
        )


def _layer(layer: _LayerModel, source: str) -> LayerProfile:
    figures: dict[Choice, Figure] = {}
    for each in layer.choices:
        try:
            choice = Choice(each.weight, each.activation)
        except FormatError as cause:
            raise ProfileError(f"{source}: {cause}") from cause
        if choice in figures:
            raise ProfileError(f"{source}: {choice} stands there twice; keep one of them")
        figures[choice] = Figure(each.milliseconds, each.kernel)
    if Choice() not in figures:
        raise ProfileError(f"{source}: has no floating choice; profile the model again")
    return LayerProfile(layer.weight_shape, layer.dtype, layer.runs, figures)
