"""The geometry of a convolution is torch's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mezzotint.runtime.geometry import ConvGeometry

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDING = st.one_of(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from(["same", "valid"])
)


def geometry_of(layer: nn.Conv2d) -> ConvGeometry:
    return ConvGeometry.of(vars(layer), layer.kernel_size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(
    kernel=PAIR,
    stride=PAIR,
    padding=PADDING,
    dilation=PAIR,
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_padding_and_sizes_are_those_of_torch(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] | str,
    dilation: tuple[int, int],
    size: tuple[int, int],
):
    stride = (1, 1) if padding == "same" else stride
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation).double()
    geometry, x = geometry_of(layer), torch.randn(1, 2, *size, dtype=torch.float64)
    assume(min(geometry.output_size(*size)) > 0)
    expected = layer(x)
    assert geometry.output_size(*size) == tuple(expected.shape[2:])
    padded = functional.conv2d(geometry.padded(x), layer.weight, layer.bias, stride, 0, dilation)
    odd = geometry.with_odd_padding(x)
    halves = functional.conv2d(
        odd, layer.weight, layer.bias, stride, geometry.even_padding, dilation
    )
    assert torch.allclose(padded, expected)
    assert torch.allclose(halves, expected)


def test_the_extent_reaches_from_the_first_tap_to_the_last():
    assert ConvGeometry((3, 1), dilation=(2, 5)).extent == (5, 1)
