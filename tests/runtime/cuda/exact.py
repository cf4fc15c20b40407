"""Outputs of packed layers in float64: whole numbers are summed exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.runtime import Kernel, QuantLayer
from tests.formats.strategies import value_of
from tests.runtime.layers import run

EPS = torch.finfo(torch.float32).eps


def weight_of(layer: QuantLayer) -> Tensor:
    tensors = layer.weight_tensors()
    segments = layer.weight_format.segments(tensors, layer.weight_shape)
    parts = [value_of(segment).view(segment.shape) for segment in segments]
    order = layer.weight_format.order(tensors)
    weight = torch.cat(parts)
    return weight if order is None else weight[order]


def input_of(layer: QuantLayer, x: Tensor) -> Tensor:
    quantizer = layer.input_quantizer
    if quantizer is None:
        return x.double()
    scale, zero = quantizer.parameters(x, layer.operation)
    return (quantizer.format.quantize(x, scale, zero) - zero).double() * scale.double()


def product(layer: QuantLayer, x: Tensor, weight: Tensor) -> Tensor:
    return layer.operation.apply(x, weight, None)


def assert_exact(
    kernel: Kernel, layer: QuantLayer, x: Tensor, *, rounded: Tensor | None = None, eps: float = EPS
) -> None:
    """The kernel's output against that of `rounded`, or else of what the activation format makes.

    Beside sums of integers only a few operations may round: on the product, and on each group.
    """
    inputs = input_of(layer, x) if rounded is None else rounded.double()
    weight = weight_of(layer)
    shape = (-1, *(1,) * (-layer.channel_dim - 1))
    bias = 0.0 if layer.bias is None else layer.bias.double().view(shape)
    expected = product(layer, inputs, weight) + bias
    magnitude = product(layer, inputs.abs(), weight.abs()) + abs(bias)
    output = run(kernel, layer, x)
    assert (output.dtype, output.shape) == (x.dtype, expected.shape)
    fmt = layer.weight_format
    groups = 0 if getattr(fmt, "group_size", None) is None else weight[0].numel() // fmt.group_size
    distance = (output.double() - expected).abs()
    assert bool((distance <= (6 + groups) * eps * magnitude).all()), (distance / magnitude).max()


def assert_close(kernel: Kernel, layer: QuantLayer, x: Tensor) -> None:
    """Assert sums of floating products in float32, of operands in x's dtype."""
    eps = torch.finfo(x.dtype).eps + weight_of(layer)[0].numel() * EPS / 4
    assert_exact(kernel, layer, x, rounded=layer.round_input(x), eps=eps)
