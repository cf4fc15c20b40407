"""The package's own products: weights in panels, blocks of rows, depth and outputs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mezzotint.formats import pack
from mezzotint.runtime import QuantLayer, keep_unpacked
from mezzotint.runtime.cpu import OWN, library, units
from mezzotint.runtime.cpu.panels import Panels, in_panels, padded_size
from tests.runtime.cpu.conftest import prefer_own_products
from tests.runtime.cpu.test_int8 import assert_exact
from tests.runtime.layers import conv, linear, noise, packed


@pytest.fixture(autouse=True, scope="module")
def own_products():
    with pytest.MonkeyPatch.context() as patch:
        prefer_own_products(patch)
        if units.unit() is None:
            pytest.skip("this processor has none of the vector units")
        yield


def panels_of(layer: QuantLayer) -> tuple[Panels, ...]:
    unit = units.unit()
    return tuple(in_panels(segment, unit) for segment in layer.packed_weight.segments)


def together(bits: int) -> int:
    return units.unit().together(bits)


@given(
    outputs=st.integers(1, 40),
    channels=st.integers(1, 20),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    bits=st.integers(1, 8),
)
def test_weights_in_panels_are_the_weights(
    outputs: int, channels: int, kernel: tuple[int, int], bits: int
):
    layer = packed(conv(channels, outputs, kernel), f"int{bits}/channel", "int8/token")
    (panels,) = panels_of(layer)
    stored = layer.packed_weight.segments[0].unpacked()
    integers = stored.view(layer.weight_shape).int()
    integers = 2 * integers - 1 if bits == 1 else integers - 2 ** (bits - 1)
    assert torch.equal(panels.totals, integers.flatten(1).sum(1, dtype=torch.int32))
    count, steps, side, side_by_side = panels.data.shape
    rows = panels.data.permute(0, 2, 1, 3).reshape(count * side, steps * side_by_side)
    size = integers[0].numel()
    taps_first = integers.flatten(2).transpose(1, 2).flatten(1)
    assert torch.equal(rows[:outputs, :size].int(), taps_first)
    # What fills up the last panel and the last step multiplies to nothing.
    assert not rows[outputs:].any()
    assert not rows[:, size:].any()
    assert panels.data.numel() == padded_size(layer.weight_shape, together(bits))


@given(
    outputs=st.integers(1, 40),
    channels=st.integers(1, 20),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    bits=st.integers(1, 6),
)
def test_panels_of_lookup_weights_hold_their_levels(
    outputs: int, channels: int, kernel: tuple[int, int], bits: int
):
    layer = packed(conv(channels, outputs, kernel), f"lut{bits}/channel", "int8/token")
    (panels,) = panels_of(layer)
    (segment,) = layer.packed_weight.segments
    integers = segment.levels[0][segment.unpacked().int()]
    assert torch.equal(panels.integers(), integers)
    assert torch.equal(panels.totals, integers.sum(1, dtype=torch.int32))
    assert panels.data.numel() == padded_size(layer.weight_shape, together(8))


@given(outputs=st.integers(1, 40), channels=st.integers(1, 20), seed=st.integers(0, 99))
def test_stored_codes_come_back_from_panels(outputs: int, channels: int, seed: int):
    layer = packed(conv(channels, outputs, 3), "int8/channel", "int8/token")
    stored = pack(torch.randint(0, 256, (outputs, channels * 9)).to(torch.uint8), 8)
    layer.get_buffer("weight_codes").copy_(stored)
    prepared = OWN.prepare(layer.packed_weight, layer.operation, unpack=True)
    assert torch.equal(prepared.stored(), stored)


@pytest.mark.parametrize("bits", [1, 4, 6, 8])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (5, 1023, 15), (6, 1024, 16), (7, 1025, 17), (47, 3, 511), (48, 2049, 512), (49, 7, 513),
        (13, 2050, 1040),
    ],
)  # fmt: skip
def test_sums_are_exact_around_the_sizes_of_blocks(bits: int, rows: int, inputs: int, outputs: int):
    assert_exact(
        packed(linear(inputs, outputs), f"uint{bits}/channel", "int8/token"), noise(rows, inputs)
    )


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_kernel_s_window_may_be_deeper_than_a_block(bits: int):
    layer = packed(conv(130, 20, 3, padding=1), f"int{bits}/channel", "uint8/tensor")
    assert_exact(layer, noise(1, 130, 5, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [3, 700], ids=["outputs-are-shared-out", "rows-are-shared-out"])
def test_one_and_many_threads_agree(rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    layer, x = packed(linear(64, 600), "int4/channel", "int8/token"), noise(rows, 64).to(dtype)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = layer(x)
    monkeypatch.setattr(library, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert torch.equal(layer(x), alone)


def test_a_static_range_does_not_hide_what_is_not_a_number():
    layer = packed(linear(), "int4/channel", "uint8/tensor")
    x = noise(3, 19)
    x[1, 4] = torch.nan
    y = layer(x)
    assert bool(y[1].isnan().all())
    assert not bool(y[::2].isnan().any())


def test_panels_are_filled_up_to_what_is_multiplied_together():
    assert padded_size((17, 3, 3, 3), 4) == 32 * 28
    assert padded_size((17, 3, 3, 3), 2) == 32 * 28
    assert padded_size((16, 5), 2) == 16 * 6


@pytest.mark.parametrize(("outputs", "kept"), [(8208, True), (8200, True), (40, False)])
def test_eight_bits_stay_in_panels_where_they_take_hardly_more(outputs: int, kept: bool):
    layer = packed(linear(32, outputs), "int8/channel", "int8/token")
    layer(noise(2, 32))
    assert (layer.prepared is not None) == kept


@pytest.mark.parametrize(
    "lent", [noise(7, 2)[:, 0], noise(1).expand(7), torch._neg_view(noise(7))],
    ids=["strided", "expanded", "negative"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(outputs=7), noise(3, 19)), (conv(outputs=7), noise(1, 4, 5, 5))],
    ids=["linear", "conv2d"],
)
def test_a_bias_may_be_a_view(layer: nn.Module, x: torch.Tensor, lent: torch.Tensor):
    expected, found = (packed(layer, "int4/channel", "int8/token") for _ in range(2))
    expected.bias = nn.Parameter(lent.clone().contiguous(), requires_grad=False)
    found.bias = nn.Parameter(lent, requires_grad=False)
    assert torch.equal(found(x), expected(x))


@pytest.mark.parametrize(
    "weight",
    [
        "int4/channel", "uint4/channel", "int4/channel/float32", "int1/tensor", "uint7/tensor",
        "lut3/channel",
    ],
)  # fmt: skip
def test_what_is_held_unpacked_is_what_was_said(weight: str):
    layer = packed(linear(18, 40), weight, "int8/token")
    said = keep_unpacked(layer, 10_000)
    layer(noise(3, 18))
    (panels,) = layer.prepared.panels
    assert layer.prepared.extra_bytes == said
    held = {t.untyped_storage() for t in vars(panels).values() if isinstance(t, torch.Tensor)}
    stored = {t.untyped_storage().data_ptr() for t in layer.buffers()}
    assert sum(one.nbytes() for one in held if one.data_ptr() not in stored) == said
