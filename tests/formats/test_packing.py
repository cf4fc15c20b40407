import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import FormatError
from mezzotint.formats import pack, packed_width, unpack

WIDTHS = range(1, 9)
SIZES = st.tuples(st.integers(0, 5), st.integers(0, 70))


def random_codes(rows: int, count: int, bits: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**bits, (rows, count), dtype=torch.uint8, generator=generator)


@given(bits=st.sampled_from(WIDTHS), size=SIZES, seed=st.integers(0, 1000))
def test_unpacking_returns_every_code(bits: int, size: tuple[int, int], seed: int):
    codes = random_codes(*size, bits, seed)
    assert torch.equal(unpack(pack(codes, bits), bits, size[1]), codes)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65])
def test_the_largest_and_smallest_codes_survive(bits: int, count: int):
    for value in (0, 2**bits - 1):
        codes = torch.full((2, count), value, dtype=torch.uint8)
        assert torch.equal(unpack(pack(codes, bits), bits, count), codes)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_a_row_takes_its_bits_rounded_up_to_eight_codes(bits: int, count: int):
    packed = pack(random_codes(3, count, bits), bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, packed_width(count, bits))
    assert packed_width(count, bits) == bits * ((count + 7) // 8)


def test_four_bits_are_low_and_high_nibbles():
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]], dtype=torch.uint8)
    assert pack(codes, 4).tolist() == [[0x21, 0x43, 0x65, 0x87]]


@given(
    bits=st.sampled_from(WIDTHS),
    count=st.integers(1, 40),
    start=st.integers(0, 6),
    stop=st.integers(0, 6),
)
def test_any_slice_of_rows_unpacks_alone(bits: int, count: int, start: int, stop: int):
    codes = random_codes(6, count, bits)
    rows = pack(codes, bits)[start:stop]
    assert torch.equal(unpack(rows, bits, count), codes[start:stop])


@pytest.mark.parametrize("bits", WIDTHS)
def test_strided_codes_are_packed_like_contiguous_ones(bits: int):
    wide = random_codes(9, 32, bits)
    for view in (wide[:, ::2], wide[:, 3:19], wide.t()):
        assert torch.equal(pack(view, bits), pack(view.contiguous(), bits))


def test_packing_leaves_the_codes_alone():
    codes = random_codes(3, 16, 5)
    before = codes.clone()
    pack(codes, 5)
    assert torch.equal(codes, before)


@pytest.mark.parametrize("bits", [-1, 0, 9, 16])
def test_other_widths_are_refused(bits: int):
    codes = torch.zeros(2, 8, dtype=torch.uint8)
    with pytest.raises(FormatError, match=f"bits is {bits}"):
        pack(codes, bits)
    with pytest.raises(FormatError, match=f"bits is {bits}"):
        unpack(codes, bits, 8)


@pytest.mark.parametrize("bad", [torch.zeros(2, 8), torch.zeros(8, dtype=torch.uint8)])
def test_only_byte_matrices_are_packed(bad: torch.Tensor):
    with pytest.raises(FormatError, match="uint8 matrices"):
        pack(bad, 4)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("excess", [-1, 1])
def test_rows_of_the_wrong_length_are_refused(bits: int, excess: int):
    packed = torch.zeros(2, packed_width(20, bits) + excess, dtype=torch.uint8)
    with pytest.raises(FormatError, match="does not belong to this format"):
        unpack(packed, bits, 20)
