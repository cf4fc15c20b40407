"""Packed weights by floating inputs."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mezzotint.formats import (
    Codes,
    LookupGrid,
    LookupSegment,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    as_bits,
    pack,
    packed_width,
    registry,
)
from mezzotint.runtime.cpu import FLOAT, processor, tiles
from mezzotint.runtime.reference_kernel import ReferenceKernel
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise, packed, run

FORMATS = (
    *(f"{kind}{width}/channel" for kind in ("int", "uint") for width in range(1, 9)),
    "int3/tensor",
    "uint4/group8",
    "int2/group5",
    "kmeans4/channel",
    "kmeans3/tensor",
    "lut1/channel",
    "lut4/channel",
    "mixed/int2:3,int5:4",
    "mixed/kmeans1:3,uint2:3,uint3:1",
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
        run(FLOAT, found, x), run(ReferenceKernel(), found, x), rtol=1e-5, atol=1e-6
    )


@examples(30)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 70), st.integers(1, 40)),
    weight=st.sampled_from(["int3/channel", "uint5/group7", "kmeans2/channel"]),
)
def test_any_shape_will_do(shape: tuple[int, int, int], weight: str):
    rows, inputs, outputs = shape
    found, x = packed(linear(inputs, outputs), weight), noise(rows, inputs)
    assert torch.allclose(
        run(FLOAT, found, x), run(ReferenceKernel(), found, x), rtol=1e-5, atol=1e-5
    )


@EITHER
@pytest.mark.parametrize("weight", ["int4/channel", "uint4/group8", "kmeans4/channel"])
@pytest.mark.usefixtures("either_way")
def test_tiles_make_no_difference(
    layer: nn.Module, x: Tensor, weight: str, monkeypatch: pytest.MonkeyPatch
):
    layer = linear(19, 50) if isinstance(layer, nn.Linear) else conv(4, 50)
    found = packed(layer, weight)
    whole = run(FLOAT, found, x)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    assert torch.allclose(run(FLOAT, found, x), whole, atol=1e-6)


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
        y = run(FLOAT, found, x.bfloat16())
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
    assert torch.allclose(run(FLOAT, found, x), run(ReferenceKernel(), found, x), atol=1e-6)


class _Ternary(WeightFormat):
    """Somebody's own format: a table for all rows, and a scale for each."""

    name, bits = "ternary", 2.0

    def layout(self, shape: Shape) -> dict[str, TensorSpec]:
        rows, columns = shape[0], torch.Size(shape[1:]).numel()
        codes = TensorSpec((rows, packed_width(columns, 2)), torch.uint8)
        return {"codes": codes, "scale": TensorSpec((rows, 1), torch.int32)}

    def grid(self, weight: Tensor, search: RangeSearch) -> LookupGrid:
        matrix = weight.flatten(1)
        scale = matrix.abs().amax(1, keepdim=True)
        return LookupGrid(torch.tensor([[-1.0, 0.0, 1.0]]), tuple(matrix.shape), scale)

    def store(self, grid: LookupGrid, codes: Codes) -> dict[str, Tensor]:
        packed_codes = torch.cat([pack(piece, 2) for piece in codes])
        return {"codes": packed_codes, "scale": as_bits(grid.scale)}

    def segments(self, tensors: Mapping[str, Tensor], shape: Shape) -> tuple[LookupSegment, ...]:
        levels, scale = torch.tensor([[-1.0, 0.0, 1.0, 1.0]]), tensors["scale"].view(torch.float32)
        return (LookupSegment(shape, 2, tensors["codes"], levels, scale),)

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        pass


@EITHER
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_a_format_that_is_not_built_in_is_computed_by_its_segments(
    layer: nn.Module, x: Tensor, native: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(registry, "_PARSERS", [lambda name: _Ternary()])
    monkeypatch.setattr(tiles, "TILE_ROWS", 2)
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    if not native:
        monkeypatch.setattr(tiles.native, "available", lambda *_: False)
    found = packed(layer, "ternary")
    assert found.selection.kernel.name == "cpu-float"
    assert found.dequantized_weight().flatten(1)[0].unique().numel() == 3
    assert torch.allclose(found(x), run(ReferenceKernel(), found, x), atol=1e-6)
