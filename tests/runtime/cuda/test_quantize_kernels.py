import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from mezzotint.formats import ActivationFormat, parse_activation_format
from mezzotint.runtime.cuda import inputs
from tests.fuzzing import examples
from tests.runtime.layers import noise

NAMES = ("int8/token", "uint8/token", "int4/token", "uint3/token")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def parsed(name: str) -> ActivationFormat:
    found = parse_activation_format(name)
    assert found is not None
    return found


def assert_same(x: Tensor, activation: ActivationFormat) -> None:
    """Codes, scales and zero points of rows, bit by bit."""
    found = inputs.quantized(x, activation, len(x))
    scale, zero = activation.dynamic_parameters(x, (1,))
    shift = 0 if activation.symmetric else 128
    assert found.scale is not None
    assert torch.equal(found.scale, scale.view(-1))
    assert (found.zero_point is None) == activation.symmetric
    if found.zero_point is not None:
        assert torch.equal(found.zero_point + shift, zero.view(-1).int())
    assert found.values.dtype == torch.int8
    assert torch.equal(found.values.float() + shift, activation.quantize(x, scale, zero))


@st.composite
def rows(draw) -> Tensor:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 20)))
    magnitude = float(np.float32(draw(st.sampled_from([1e-38, 1e-6, 1.0, 6e4]))))
    values = draw(arrays(np.float32, shape, elements=st.floats(-magnitude, magnitude, width=32)))
    return torch.from_numpy(values)


@pytest.mark.parametrize("name", NAMES)
@examples(15)
@given(x=rows(), dtype=st.sampled_from(DTYPES))
def test_tokens_are_quantized_as_the_format_says(name: str, x: Tensor, dtype: torch.dtype):
    x = x.to(dtype)
    if dtype == torch.bfloat16:
        # The interpreter takes its subnormal numbers for zero.
        x = torch.where(x.abs() < torch.finfo(dtype).tiny, 0.0, x)
    assert_same(x, parsed(name))


@pytest.mark.parametrize("name", NAMES)
def test_so_are_tokens_and_images_too_long_for_one_pass(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "LONGEST_TOKEN", 50)
    monkeypatch.setattr(inputs, "BLOCK", 32)
    assert_same(noise(3, 50), parsed(name))
    assert_same(noise(3, 101) * torch.tensor([[1e-3], [1.0], [1e3]]), parsed(name))
    assert_same(noise(3, 101).abs() + 1, parsed(name))


def test_an_image_is_one_unit():
    x = noise(2, 3, 4, 5)
    found = inputs.quantized(x, parsed("int8/token"), 2)
    assert found.values.shape == x.shape
    assert found.scale is not None
    assert torch.equal(found.scale, x.abs().amax((1, 2, 3)) / 127)


@pytest.mark.parametrize("name", ["int8/tensor", "uint8/tensor", "uint5/tensor"])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 3.0), (-2.0, 0.0), (-1e-3, 1e3)])
def test_a_calibrated_range_clips(name: str, low: float, high: float):
    activation = parsed(name)
    x = noise(5, 21) * 2
    x[0, :2] = torch.tensor([1e30, -1e30])
    scale, zero = activation.range_parameters(low, high, x.device)
    found = inputs.quantized_statically(x, activation, scale, zero.to(torch.uint8))
    shift = 0 if activation.symmetric else 128
    assert torch.equal(found.values.float() + shift, activation.quantize(x, scale, zero))


@pytest.mark.parametrize("name", ["int8/tensor", "uint8/tensor"])
def test_ties_go_to_the_even_code(name: str):
    activation = parsed(name)
    x = torch.arange(-300, 300).view(1, -1) / 2
    scale, zero = torch.ones(1), torch.zeros(1) if activation.symmetric else torch.full((1,), 99.0)
    found = inputs.quantized_statically(x, activation, scale, zero.to(torch.uint8))
    shift = 0 if activation.symmetric else 128
    assert torch.equal(found.values.float() + shift, activation.quantize(x, scale, zero))


def test_what_is_calibrated_is_not_written_to():
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.uint8)
    found = inputs.quantized_statically(noise(2, 3), parsed("uint8/tensor"), scale, zero)
    assert found.scale is not None
    assert found.scale.data_ptr() != scale.data_ptr()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_becomes_nothing(shape: tuple[int, int]):
    found = inputs.quantized(torch.zeros(shape), parsed("int8/token"), shape[0])
    assert found.values.shape == shape
