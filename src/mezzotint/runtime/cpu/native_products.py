"""The C functions of products.c on torch tensors; `native.multiplies()` says whether they exist."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.runtime.cpu.library import fields, function
from mezzotint.runtime.cpu.team import share, threads_for

#: Outputs side by side in a panel.
PANEL = 16
#: Rows that are gathered at a time.
_BLOCK = 48
#: Panels for which gathering their rows takes little of the time.
_PANELS = 8
#: As many products take the time of a byte that is quantized or unpacked.
_PRODUCTS_PER_BYTE = 16


class _Panels(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="packed scratch out totals", longs="rows channels taps", ints="bits together"
    )


def panels(packed: Tensor, bits: int, shape: tuple[int, int], out: Tensor, totals: Tensor) -> None:
    """Codes of a weight as `multiply` wants them, int8 `out` [panels, depth, 16, together].

    Also their sums by row, int32 `totals` [rows]. `shape`: channels and taps of a kernel; the depth
    goes through all channels of the first tap, then of the next.
    """
    count, steps, _, together = out.shape
    threads = threads_for(count, out.numel())
    rows = torch.empty(threads, PANEL + 1, steps * together, dtype=torch.uint8, device="cpu")
    work = _Panels(
        packed.data_ptr(), rows.data_ptr(), out.data_ptr(), totals.data_ptr(), len(totals), *shape,
        bits, together,
    )  # fmt: skip
    share("mz_panels", work, count, threads)


class Product(ctypes.Structure):
    """What `multiply` computes; products.c has the same fields, and says what they are."""

    _fields_: ClassVar = fields(
        pointers="codes panels totals row_scale row_sum scale shift bias out scratch",
        longs="height width channels kernel_height kernel_width down right above beside far apart "
        "out_height out_width rows_alike rows outputs stride",
        ints="zero bits dtype by_rows",
    )


def multiply(product: Product, work: int) -> None:
    """Compute a product, which takes `work` multiplications."""
    product.by_rows = product.rows >= product.outputs
    count, least = product.rows, _BLOCK
    if not product.by_rows:
        count, least = -(-product.outputs // PANEL), _PANELS
    threads = threads_for(count, work // _PRODUCTS_PER_BYTE)
    scratch = torch.empty(threads, function("mz_products")(), dtype=torch.uint8, device="cpu")
    product.scratch = scratch.data_ptr()
    share("mz_multiply", product, count, threads, least)
