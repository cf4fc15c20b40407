"""Dense packing of small unsigned integers into bytes, for every width from 1 to 8.

A row of `n` codes is padded to `8·g` codes (`g = ceil(n / 8)`) and cut into eight contiguous slots
of `g` codes. Slot `j` occupies bits `j·bits … (j+1)·bits - 1` of a column of `bits` byte planes,
each `g` bytes long: a row takes exactly `bits·g` bytes. Contiguous slots make unpacking eight
shifts of whole planes instead of a gather; for 4 bits it is the usual low nibble / high nibble.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mezzotint.errors import FormatError

SLOTS = 8


def packed_width(count: int, bits: int) -> int:
    """Bytes that a row of `count` codes of `bits` bits takes."""
    return bits * -(-count // SLOTS)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack `codes` (uint8 [rows, n], each below 2**bits) into uint8 [rows, packed_width(n, bits)].

    Raises:
        FormatError: the width is not 1–8, or `codes` is not a uint8 matrix.
    """
    _check(codes, bits)
    rows, count = codes.shape
    group = -(-count // SLOTS)
    slots = pad(codes, (0, SLOTS * group - count)).view(rows, SLOTS, group)
    planes = codes.new_zeros(rows, bits, group)
    for slot in range(SLOTS):
        plane, shift = divmod(slot * bits, 8)
        planes[:, plane] |= slots[:, slot] << shift
        if shift + bits > 8:
            planes[:, plane + 1] |= slots[:, slot] >> (8 - shift)
    return planes.view(rows, bits * group)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Inverse of `pack`: uint8 [rows, count]; any leading slice of rows may be unpacked alone.

    Raises:
        FormatError: the row length is not that of `count` codes of `bits` bits.
    """
    _check(packed, bits)
    rows, width = packed.shape
    if width != packed_width(count, bits):
        raise FormatError(
            f"packed rows have {width} bytes, but {count} codes of {bits} bits take "
            f"{packed_width(count, bits)}: the tensor does not belong to this format"
        )
    group = -(-count // SLOTS)
    planes = packed.view(rows, bits, group)
    slots = packed.new_empty(rows, SLOTS, group)
    mask = (1 << bits) - 1
    for slot in range(SLOTS):
        plane, shift = divmod(slot * bits, 8)
        value = planes[:, plane] >> shift
        if shift + bits > 8:
            value |= planes[:, plane + 1] << (8 - shift)
        slots[:, slot] = value.bitwise_and_(mask)
    return slots.view(rows, SLOTS * group)[:, :count]


def _check(tensor: Tensor, bits: int) -> None:
    if not 1 <= bits <= 8:
        raise FormatError(f"bits is {bits}; packing knows widths from 1 to 8")
    if tensor.dtype != torch.uint8 or tensor.ndim != 2:
        raise FormatError(
            f"packing works on uint8 matrices, not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
