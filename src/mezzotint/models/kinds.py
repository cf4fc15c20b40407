"""The kinds of layers that hold weights: Linear and every convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from torch import Tensor, nn

Kind = Literal[
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

_KINDS: Mapping[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
}

WeightLayer = nn.Linear | nn.modules.conv._ConvNd


def weight_layers(denoiser: nn.Module) -> Iterator[tuple[str, WeightLayer]]:
    """Every Linear and Conv with its dotted name, in order of definition."""
    modules = denoiser.named_modules()
    return ((name, module) for name, module in modules if isinstance(module, WeightLayer))


def kind_of(layer: WeightLayer) -> Kind:
    """The kind of a layer; subclasses count as the class that they extend."""
    return next(kind for base, kind in _KINDS.items() if isinstance(layer, base))


def weight_parameter(layer: WeightLayer) -> nn.Parameter | None:
    """The weight as it is stored; None where the layer computes it from something else."""
    return dict(layer.named_parameters(recurse=False)).get("weight")


def is_plain(layer: WeightLayer) -> bool:
    """Return whether a layer is one of torch's own, with its weight stored as it is.

    Subclasses and parametrizations, such as weight norm, compute something else with it.
    """
    return type(layer) in _KINDS and weight_parameter(layer) is not None


def layer_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input of a call of a Linear or Conv, which some models give as a keyword."""
    x: Tensor = args[0] if args else kwargs["input"]
    return x


def channel_dim(layer: WeightLayer) -> int:
    """The dimension of a layer's input that holds its features or channels, from the end."""
    return -1 if isinstance(layer, nn.Linear) else -(layer.weight.ndim - 1)


def multiply_accumulates(layer: WeightLayer, x: Tensor, y: Tensor) -> int:
    """Multiply-accumulates of one run from `x` to `y`.

    Each weight is used once per position: of the output, or of a transposed convolution's input.
    """
    channels = layer.weight.shape[0]
    counted = x if isinstance(layer, nn.modules.conv._ConvTransposeNd) else y
    return counted.numel() // channels * layer.weight.numel()
