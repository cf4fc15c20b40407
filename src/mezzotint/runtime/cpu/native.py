"""The C functions on torch tensors; absent where the package was built without them.

Their structures are declared here as in the C files, field by field. Callers ask `available()`, and
have torch code for the other case, with the same results.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.runtime.cpu.library import fields, library, share, threads_for

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
#: Pixels that are transposed at a time.
_PIXELS = 64


def available(*tensors: Tensor) -> bool:
    """Return whether the functions exist, and know the dtypes of these floating tensors."""
    return library() is not None and all(tensor.dtype in DTYPES for tensor in tensors)


class _Unpack(ctypes.Structure):
    _fields_: ClassVar = fields(pointers="packed book out", longs="count", ints="bits")


def unpack(packed: Tensor, bits: int, book: Tensor | None, out: Tensor) -> None:
    """int8 `out` [rows, count]: code - 2^(bits - 1), or ±1 at one bit; or book[code].

    The book is int8 [1, 2^bits], of at most six bits.
    """
    count = out.shape[1]
    work = _Unpack(packed.data_ptr(), address(book), out.data_ptr(), count, bits)
    share("mz_unpack", work, len(out), threads_for(len(out), out.numel()))


class _Dequantize(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="packed scale zero scratch out", longs="count groups group_size", ints="bits dtype"
    )


def dequantize(packed: Tensor, bits: int, affine: tuple[Tensor, Tensor, int], out: Tensor) -> None:
    """`out` [rows, count] = scale · (code - zero); `affine`: float32 scale and zero, group size.

    Scale and zero are [rows, groups]; the last group of a row may be shorter than the size.
    """
    (rows, count), (scale, zero, size) = out.shape, affine
    threads = threads_for(rows, out.numel())
    codes = torch.empty(threads, count, dtype=torch.uint8, device="cpu")
    work = _Dequantize(
        packed.data_ptr(), scale.data_ptr(), zero.data_ptr(), codes.data_ptr(), out.data_ptr(),
        count, scale.shape[1], size, bits, DTYPES[out.dtype],
    )  # fmt: skip
    share("mz_dequantize", work, rows, threads)


class _LookUp(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="packed levels scratch out", longs="count stride", ints="bits dtype"
    )


def look_up(packed: Tensor, bits: int, levels: Tensor, out: Tensor) -> None:
    """`out` [rows, count] = levels[code]; float32 levels [rows or 1, 2^bits]."""
    rows, count = out.shape
    threads = threads_for(rows, out.numel())
    codes = torch.empty(threads, count, dtype=torch.uint8, device="cpu")
    stride = levels.shape[1] if len(levels) > 1 else 0
    work = _LookUp(
        packed.data_ptr(), levels.data_ptr(), codes.data_ptr(), out.data_ptr(), count, stride, bits,
        DTYPES[out.dtype],
    )  # fmt: skip
    share("mz_look_up", work, rows, threads)


class _Peaks(ctypes.Structure):
    _fields_: ClassVar = fields(pointers="x out", longs="count stride", ints="dtype")


def peaks(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, float32 [rows]; NaN where there is one."""
    rows = _with_dense_rows(rows)
    out = torch.empty(len(rows), dtype=torch.float32, device="cpu")
    work = _Peaks(
        rows.data_ptr(), out.data_ptr(), rows.shape[1], rows.stride(0), DTYPES[rows.dtype]
    )
    share("mz_peaks", work, len(rows), threads_for(len(rows), rows.numel()))
    return out


class CodeRange(ctypes.Structure):
    """The codes that inputs are rounded to: from `low` to `high`, stored plus `shift`."""

    _fields_: ClassVar = fields(ints="zero low high shift")


class _Quantize(ctypes.Structure):
    _fields_: ClassVar = [
        *fields(
            pointers="x scale zeros out sums",
            longs="count stride out_stride scale_step",
            ints="dynamic dtype",
        ),
        ("range", CodeRange),
    ]


def quantize(
    rows: Tensor, scale: Tensor | None, code_range: CodeRange, zeros: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 codes + shift [rows, count], Σ (code - zero) [rows] and the scale [rows], float32.

    Without a scale each row has its own: its largest magnitude by the highest code; or, where zero
    points are asked for, in int32 `zeros` [rows], its range by the highest code. The sum of a row
    that holds NaN is NaN. Rows may lie further apart than their length.
    """
    rows = _with_dense_rows(rows)
    codes = torch.empty(rows.shape, dtype=torch.uint8, device="cpu")
    sums = torch.empty(len(rows), dtype=torch.float32, device="cpu")
    scales = torch.empty_like(sums) if scale is None else scale.contiguous()
    work = _Quantize(
        rows.data_ptr(), scales.data_ptr(), address(zeros), codes.data_ptr(), sums.data_ptr(),
        rows.shape[1], rows.stride(0), rows.shape[1], 1, scale is None, DTYPES[rows.dtype],
        code_range,
    )  # fmt: skip
    share("mz_quantize", work, len(rows), threads_for(len(rows), rows.numel()))
    return codes, sums, scales


class _QuantizePixels(ctypes.Structure):
    _fields_: ClassVar = [
        *fields(
            pointers="x out sums", longs="channels pixels out_stride", ints="dtype", floats="scale"
        ),
        ("range", CodeRange),
    ]


def quantize_image(
    image: Tensor, scale: float, code_range: CodeRange, out: Tensor, sums: Tensor
) -> None:
    """Quantize a contiguous image [c, h, w] into `out` [h·w, c], sums [h·w]."""
    pixels = len(out)
    work = _QuantizePixels(
        image.data_ptr(), out.data_ptr(), sums.data_ptr(), len(image), pixels, out.shape[1],
        DTYPES[image.dtype], scale, code_range,
    )  # fmt: skip
    share("mz_quantize_pixels", work, pixels, threads_for(pixels, image.numel()), _PIXELS)


class _Rescale(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="product scale sums shift bias out", longs="count stride", ints="dtype"
    )


def rescale(
    product: Tensor, scale: Tensor, sums: Tensor, columns: tuple[Tensor, Tensor], out: Tensor
) -> None:
    """`out` [rows, count] = (product - sums · shift) · scale + bias; `columns`: shift and bias.

    All float32 but `out`, whose rows may lie further apart than their length.
    """
    (rows, count), (shift, bias) = product.shape, columns
    work = _Rescale(
        product.data_ptr(), scale.data_ptr(), sums.data_ptr(), shift.data_ptr(), bias.data_ptr(),
        out.data_ptr(), count, out.stride(0), DTYPES[out.dtype],
    )  # fmt: skip
    share("mz_rescale", work, rows, threads_for(rows, product.numel()))


def address(tensor: Tensor | None) -> int | None:
    """The place of a tensor's values; None for none."""
    return None if tensor is None else tensor.data_ptr()


def _with_dense_rows(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 else rows.contiguous()
