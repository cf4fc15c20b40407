"""Calibrated scales and zero points that parts of a batch have of their own."""

import pytest
import torch
from torch import Tensor

from mezzotint.formats import parse_activation_format
from mezzotint.runtime import InputQuantizer, Kernel, QuantLayer
from mezzotint.runtime.cuda import FloatKernel, Int8Kernel
from tests.runtime.layers import conv, linear, noise, packed

SCALES = torch.tensor([0.3, 0.2, 0.45])
ZERO_POINTS = torch.tensor([7.0, 9.0, 5.0])
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(19, 7), noise(3, 5, 19)), (conv(4, 7, padding=1), noise(3, 4, 6, 6))],
    ids=["linear", "conv2d"],
)


def run(
    kernel: Kernel, layer: QuantLayer, x: Tensor, activation: str, parts: slice = slice(None)
) -> Tensor:
    fmt = parse_activation_format(activation)
    assert fmt is not None
    zero_points = torch.zeros(3) if fmt.symmetric else ZERO_POINTS
    quantizer = InputQuantizer(fmt, SCALES[parts], zero_points[parts])
    prepared = kernel.prepare(layer.packed_weight, layer.operation)
    return kernel.run(prepared, x, quantizer, layer.bias)


@EITHER
@pytest.mark.parametrize("activation", ["uint4/step", "uint6/step", "int8/step"])
@pytest.mark.parametrize("weight", ["int4/channel", "uint3/channel", "mixed/int2:2,int3:4,int8:1"])
def test_products_are_those_of_single_calls(
    layer: torch.nn.Module, x: Tensor, weight: str, activation: str
):
    found = packed(layer, weight)
    singles = [
        run(Int8Kernel(), found, x[i : i + 1], activation, slice(i, i + 1)) for i in (0, 1, 2)
    ]
    assert torch.equal(run(Int8Kernel(), found, x, activation), torch.cat(singles))


@EITHER
def test_one_scale_is_that_of_a_static_format(layer: torch.nn.Module, x: Tensor):
    found = packed(layer, "int4/channel")
    per_step, static = (
        run(Int8Kernel(), found, x, name, slice(0, 1)) for name in ("uint4/step", "uint4/tensor")
    )
    assert torch.equal(per_step, static)


@EITHER
def test_floating_products_take_them_too(layer: torch.nn.Module, x: Tensor):
    found = packed(layer, "int4/channel")
    exact = run(Int8Kernel(), found, x, "uint4/step")
    torch.testing.assert_close(
        run(FloatKernel(), found, x, "uint4/step"), exact, rtol=1e-4, atol=1e-4
    )
