"""Bits per weight of a plan: as papers count them, and as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import nn

from mezzotint.models import Layer
from mezzotint.plan import Choice, LayerShape
from mezzotint.recipes.costs import choice_bytes, floating_bytes
from mezzotint.runtime import nominal_bits

BITS = "bits"
"""Key of a plan's context under which its averages stand."""


@dataclass(frozen=True)
class PlanBits:
    """Averages over a denoiser's weights, in bits.

    Attributes:
        nominal: widths alone, of the layers that are no exception.
        with_exceptions: widths alone, of all layers; a floating weight has the bits of its
            checkpoint.
        stored: scales, zero points, channel orders and what structures store included, of all
            layers.
        denoiser: bytes of the whole stored denoiser ×8 over the number of the layers' weights.
    """

    nominal: float
    with_exceptions: float
    stored: float
    denoiser: float

    def context(self) -> dict[str, object]:
        """Part of a plan's context, JSON values."""
        return {BITS: {name: round(value, 4) for name, value in asdict(self).items()}}


def plan_bits(
    denoiser: nn.Module,
    layers: Sequence[Layer],
    choices: Mapping[str, Choice],
    exempt: Iterable[str],
) -> PlanBits:
    """The averages of a plan.

    Args:
        denoiser: the floating model.
        layers: those that can be packed.
        choices: of every one of them.
        exempt: those that are exceptions.
    """
    exceptions = set(exempt)
    inner = [layer for layer in layers if layer.name not in exceptions]
    total = sum(layer.parameters for layer in layers)
    stored = sum(
        choice_bytes(
            layer, choices[layer.name], denoiser.get_submodule(layer.name).get_parameter("weight")
        )
        for layer in layers
    )
    return PlanBits(
        nominal=_average(inner, choices),
        with_exceptions=_average(layers, choices),
        stored=stored * 8 / total,
        denoiser=(stored + floating_bytes(denoiser, layers)) * 8 / total,
    )


def _average(layers: Sequence[Layer], choices: Mapping[str, Choice]) -> float:
    total = sum(layer.parameters for layer in layers)
    bits = sum(_width(layer, choices[layer.name]) * layer.parameters for layer in layers)
    return bits / total if total else 0.0


def _width(layer: Layer, choice: Choice) -> float:
    bits = nominal_bits(choice, LayerShape(layer.weight_shape, layer.groups))
    return layer.weight_bytes * 8 / layer.parameters if bits is None else bits
