"""Small float layers and the plans that pack them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mezzotint.formats import MINMAX, RangeSearch
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    Calibration,
    InputRange,
    Kernel,
    QuantConv2d,
    QuantLayer,
    QuantLinear,
    quantize_module,
)

WEIGHTS = tuple(
    f"{kind}{width}/{granularity}"
    for kind in ("int", "uint")
    for width in range(1, 9)
    for granularity in ("tensor", "channel", "group8")
)
ACTIVATIONS = ("float", "int8/token", "uint8/token", "int8/tensor", "uint8/tensor", "int4/token")

#: Covers what `noise` draws for these tests.
RANGE = InputRange(-4.0, 4.0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(inputs: int = 19, outputs: int = 7, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias)


def conv(inputs: int = 4, outputs: int = 6, kernel: int = 3, **geometry: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, kernel, **geometry)


def packed(
    layer: nn.Module,
    weight: str,
    activation: str = "float",
    search: RangeSearch = MINMAX,
    ranges: InputRange = RANGE,
) -> QuantLayer:
    """`layer` packed on its own; the float one is left alone."""
    module = nn.Sequential(layer)
    plan = Plan({"0": Choice(weight, activation)}, encoding=Encoding(search))
    quantize_module(module, plan, Calibration({"0": (ranges,)}))
    found = module[0]
    assert isinstance(found, QuantLinear | QuantConv2d)
    return found


def run(kernel: Kernel, layer: QuantLayer, x: Tensor) -> Tensor:
    """The output by a kernel that need not be the one that was selected."""
    prepared = kernel.prepare(layer.packed_weight, layer.operation)
    return kernel.run(prepared, x, layer.input_quantizer, layer.bias)
