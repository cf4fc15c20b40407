"""8-bit products of the openvino engine against arithmetic in int64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.engines import engine_executions, engine_named
from mezzotint.engines.openvino.weights import integers
from mezzotint.models import Call
from mezzotint.runtime import pack_module, packed_layers
from mezzotint.runtime.cpu import processor


class Layers(nn.Module):
    """A Linear and a convolution of [n, 8, 6, 6]: 48 and 72 products in each sum."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(48, 7, bias=False)
        self.conv = nn.Conv2d(8, 6, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [self.linear(x.reshape(len(x), -1, 48)).flatten(1), self.conv(x).flatten(1)], 1
        )


def random(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def ends(shape: torch.Size) -> Tensor:
    """The highest value everywhere but for one lowest: pairs of products at their largest."""
    values = torch.ones(shape)
    values.view(-1)[0] = -1
    return values


def signs(shape: torch.Size) -> Tensor:
    return random(shape).sign()


def integer_sums(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's sums in int64, and each output channel's factor that makes them its output."""
    (part,) = layer.parts
    quantizer = part.input_quantizer
    scale, zero_point = quantizer.scale.double(), quantizer.zero_point.double()
    low, high = part.activation_format.limits
    steps = (torch.round(x.double() / scale) + zero_point).clamp(low, high) - zero_point
    weight = integers(part.packed_weight)
    assert weight is not None
    codes = torch.from_numpy(weight.signed()).double().reshape(part.weight_shape)
    # Sums of integers below 2**53 are exact in float64, whatever their order.
    linear = isinstance(layer, nn.Linear)
    sums = functional.linear(steps, codes) if linear else functional.conv2d(steps, codes, padding=1)
    scales = torch.from_numpy(weight.scale).double().reshape(-1) * scale
    return sums.long(), scales if linear else scales[:, None, None]


@pytest.mark.parametrize("activation", ["uint8/tensor", "int8/tensor"])
@pytest.mark.parametrize("weight", ["int8/channel", "int4/channel", "int2/tensor"])
@pytest.mark.parametrize("values", [random, ends, signs])
def test_products_are_exact(
    values: Callable[[torch.Size], Tensor], weight: str, activation: str
) -> None:
    module = Layers()
    for layer in (module.linear, module.conv):
        layer.weight.data = values(layer.weight.shape)
    x = values(torch.Size((3, 8, 6, 6)))
    choice = mz.Choice(weight, activation)
    plan = mz.Plan({"linear": choice, "conv": choice})
    pack_module(module, plan, calibrated(module, plan, [Call((x,), {})]))
    served = engine_named("openvino").attach(module)
    with torch.no_grad():
        output = served(x).double()
    layers = packed_layers(module)
    for name, found, taken in (
        ("linear", output[:, : 6 * 7].reshape(3, 6, 7), x.reshape(3, -1, 48)),
        ("conv", output[:, 6 * 7 :].reshape(3, 6, 6, 6), x),
    ):
        sums, scale = integer_sums(layers[name], taken)
        # Three roundings in float32 move sums of this size by less than half.
        assert sums.abs().max() < 2_500_000
        assert torch.equal(torch.round(found / scale).long(), sums), name
    if processor.VNNI:
        assert {row.arithmetic for row in engine_executions(served)} == {"int8"}
