"""Packed weights by floating inputs."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mezzotint.formats import (
    MINMAX,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    as_bits,
    from_bits,
    registry,
)
from mezzotint.runtime.cpu import processor, weights
from mezzotint.runtime.cpu.floating import FloatKernel
from mezzotint.runtime.reference import ReferenceKernel
from tests.runtime.layers import conv, linear, noise, packed

FORMATS = (
    *(f"{kind}{width}/channel" for kind in ("int", "uint") for width in range(1, 9)),
    "int3/tensor",
    "uint4/group8",
    "int2/group5",
    "kmeans4/channel",
    "kmeans3/tensor",
    "mixed/int2:3,int5:4",
)
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(), noise(2, 5, 19)), (conv(4, 7, padding=1), noise(2, 4, 6, 6))],
    ids=["linear", "conv2d"],
)


@EITHER
@pytest.mark.parametrize("weight", FORMATS)
@pytest.mark.parametrize("activation", ["float", "uint8/token"])
@pytest.mark.usefixtures("either_way")
def test_it_agrees_with_the_reference(layer: nn.Module, x: Tensor, weight: str, activation: str):
    found = packed(layer, weight, activation)
    assert torch.allclose(
        FloatKernel().run(found, x), ReferenceKernel().run(found, x), rtol=1e-5, atol=1e-6
    )


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 70), st.integers(1, 40)),
    weight=st.sampled_from(["int3/channel", "uint5/group7", "kmeans2/channel"]),
)
def test_any_shape_will_do(shape: tuple[int, int, int], weight: str):
    rows, inputs, outputs = shape
    found, x = packed(linear(inputs, outputs), weight), noise(rows, inputs)
    assert torch.allclose(
        FloatKernel().run(found, x), ReferenceKernel().run(found, x), rtol=1e-5, atol=1e-5
    )


@EITHER
@pytest.mark.parametrize("weight", ["int4/channel", "uint4/group8", "kmeans4/channel"])
@pytest.mark.usefixtures("either_way")
def test_tiles_make_no_difference(
    layer: nn.Module, x: Tensor, weight: str, monkeypatch: pytest.MonkeyPatch
):
    layer = linear(19, 50) if isinstance(layer, nn.Linear) else conv(4, 50)
    found = packed(layer, weight)
    whole = FloatKernel().run(found, x)
    monkeypatch.setattr(weights, "TILE_BYTES", 1)
    assert torch.allclose(FloatKernel().run(found, x), whole, atol=1e-6)


@EITHER
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.usefixtures("either_way")
def test_bfloat16_is_multiplied_only_where_the_processor_can(
    layer: nn.Module, x: Tensor, fast: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processor, "BFLOAT16", fast)
    seen: list[torch.dtype] = []
    found = packed(layer, "int4/channel").bfloat16()

    class Products(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func.__name__ in ("addmm", "conv2d"):
                seen.append(args[1].dtype)
            return func(*args, **kwargs or {})

    with Products():
        y = FloatKernel().run(found, x.bfloat16())
    assert (y.dtype, set(seen)) == (torch.bfloat16, {torch.bfloat16 if fast else torch.float32})


@EITHER
@pytest.mark.parametrize("activation", ["float", "int8/token"])
def test_gradients_reach_the_input(layer: nn.Module, x: Tensor, activation: str):
    found = packed(layer, "int4/channel", activation)
    x = x.clone().requires_grad_()
    found(x).sum().backward()
    # Straight through where the input is rounded.
    (expected,) = torch.autograd.grad(found.to_float()(x).sum(), x)
    assert x.grad is not None
    assert torch.allclose(x.grad, expected)


@pytest.mark.parametrize("weight", ["int4/channel", "mixed/int2:3,int5:5"])
def test_channels_in_groups_stay_apart(weight: str):
    found, x = packed(conv(6, 8, groups=2), weight), noise(2, 6, 5, 5)
    assert torch.allclose(FloatKernel().run(found, x), ReferenceKernel().run(found, x), atol=1e-6)


class _Negated(WeightFormat):
    """Somebody's own format: its codes stand in columns."""

    name, bits = "negated", 32.0

    def layout(self, shape: Shape) -> dict[str, TensorSpec]:
        return {"codes": TensorSpec((shape[1], shape[0]), torch.int32)}

    def encode(self, weight: Tensor, search: RangeSearch = MINMAX) -> dict[str, Tensor]:
        return {"codes": as_bits(-weight.t())}

    def decode(self, tensors: Mapping[str, Tensor], shape: Shape) -> Tensor:
        return -from_bits(tensors["codes"], torch.float32).t()

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        pass


def test_a_format_that_is_not_built_in_is_decoded_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_PARSERS", [lambda name: _Negated()])
    monkeypatch.setattr(weights, "TILE_BYTES", 1)
    layer = linear(5, 40)
    found, x = packed(layer, "negated"), noise(3, 5)
    assert found.selection.kernel.name == "cpu-float"
    assert torch.allclose(found(x), layer(x), atol=1e-6)
