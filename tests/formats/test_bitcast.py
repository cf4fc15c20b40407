import pytest
import torch

from mezzotint.formats import as_bits, from_bits

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
VALUES = torch.tensor([[0.0, 1.0, 1e-3], [3e4, -2.5, 6e-5]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_come_back_bit_for_bit(dtype: torch.dtype):
    values = VALUES.to(dtype)
    back = from_bits(as_bits(values), dtype)
    assert back.dtype == torch.float32
    assert torch.equal(back, values.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_are_integers_of_the_same_width(dtype: torch.dtype):
    bits = as_bits(VALUES.to(dtype))
    assert not bits.is_floating_point()
    assert (bits.shape, bits.element_size()) == (VALUES.shape, dtype.itemsize)


def test_views_are_reinterpreted_in_their_own_order():
    assert torch.equal(from_bits(as_bits(VALUES.t()), torch.float32), VALUES.t())
