"""The C functions of products.c on torch tensors; `native.multiplies()` says whether they exist."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.runtime.cpu.native import function, in_ranges

#: Outputs side by side in a panel.
PANEL = 16
#: As many products take the time of a byte that is quantized or unpacked.
_PRODUCTS_PER_BYTE = 16


def panels(packed: Tensor, bits: int, shape: tuple[int, int], out: Tensor, totals: Tensor) -> None:
    """Codes of a weight as `multiply` wants them, int8 `out` [panels, depth, 16, together].

    Also their sums by row, int32 `totals` [rows]. `shape`: channels and taps of a kernel; the depth
    goes through all channels of the first tap, then of the next.
    """
    call, (channels, taps) = function("mz_panels"), shape
    depth, together = out.shape[1] * out.shape[3], out.shape[3]

    def run(start: int, stop: int) -> None:
        scratch = torch.empty((out.shape[2] + 1) * depth, dtype=torch.uint8, device="cpu")
        call(
            packed.data_ptr(), start, stop, totals.shape[0], channels, taps, bits, together,
            scratch.data_ptr(), out.data_ptr(), totals.data_ptr(),
        )  # fmt: skip

    in_ranges(out.shape[0], out.numel(), run)


class Product(ctypes.Structure):
    """What `multiply` computes; products.c has the same fields, and says what they are."""

    _fields_: ClassVar = [
        *((name, ctypes.c_void_p) for name in (
            "codes", "panels", "totals", "row_scale", "row_sum", "scale", "shift", "bias", "out",
        )),
        *((name, ctypes.c_int64) for name in (
            "height", "width", "channels", "kernel_height", "kernel_width", "down", "right",
            "above", "beside", "far", "apart", "out_height", "out_width", "rows_alike", "outputs",
            "stride",
        )),
        *((name, ctypes.c_int32) for name in ("zero", "bits", "dtype")),
    ]  # fmt: skip


def multiply(product: Product, rows: int, work: int) -> None:
    """Compute `rows` rows of a product, which takes `work` multiplications."""
    call, outputs = function("mz_multiply"), product.outputs
    size = function("mz_products")()

    def part(first: int, last: int, left: int, right: int) -> None:
        scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
        call(ctypes.byref(product), first, last, left, right, scratch.data_ptr())

    def some_rows(start: int, stop: int) -> None:
        part(start, stop, 0, outputs)

    def some_outputs(start: int, stop: int) -> None:
        part(0, rows, start * PANEL, min(stop * PANEL, outputs))

    bytes_alike = work // _PRODUCTS_PER_BYTE
    if rows >= outputs:
        in_ranges(rows, bytes_alike, some_rows)
    else:
        in_ranges(-(-outputs // PANEL), bytes_alike, some_outputs)
