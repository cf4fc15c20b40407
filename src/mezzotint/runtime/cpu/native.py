"""The C functions on torch tensors; absent where the package was built without them.

Callers ask `available()` and have torch code for the other case, with the same results.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Of the functions' arguments; products.c has the same. A library of another version is not used.
VERSION = 1
#: Set to 0, mezzotint does without its C functions.
SWITCH = "MEZZOTINT_NATIVE"
#: Fewer bytes than this are not worth a second thread.
_WORTH_A_THREAD = 1 << 18

DTYPES = {torch.float32: 0, torch.bfloat16: 1}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library beside this file, if there is one for this platform."""
    if os.environ.get(SWITCH) == "0":
        return None
    for path in sorted(Path(__file__).parent.glob("_kernels.*")):
        try:
            return _declared(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            # Of another platform, or of another version of this file.
            continue
    return None


def build() -> str:
    """Which library computes: digits that no other build has, or `none`."""
    found = library()
    return "none" if found is None else sha256(Path(found._name).read_bytes()).hexdigest()[:12]


def available(*tensors: Tensor) -> bool:
    """Whether the functions exist, and know the dtypes of these floating tensors."""
    return library() is not None and all(tensor.dtype in DTYPES for tensor in tensors)


def multiplies() -> bool:
    """Whether the functions multiply codes on this processor."""
    found = library()
    return found is not None and found.mz_products() > 0


def unpack(packed: Tensor, bits: int, count: int, out: Tensor) -> None:
    """int8 `out` [rows, count]: code - 2^(bits - 1), or ±1 at one bit."""
    call = function("mz_unpack")

    def run(start: int, stop: int) -> None:
        call(_row(packed, start), stop - start, count, bits, _row(out, start))

    in_ranges(len(out), out.numel(), run)


def dequantize(packed: Tensor, bits: int, affine: tuple[Tensor, Tensor, int], out: Tensor) -> None:
    """`out` [rows, count] = scale · (code - zero); `affine`: float32 scale and zero, group size.

    Scale and zero are [rows, groups]; the last group of a row may be shorter than the size.
    """
    call, count = function("mz_dequantize"), out.shape[1]
    scale, zero, size = affine

    def run(start: int, stop: int) -> None:
        scratch = torch.empty(count, dtype=torch.uint8, device="cpu")
        call(
            _row(packed, start), stop - start, count, bits, _row(scale, start), _row(zero, start),
            scale.shape[1], size, scratch.data_ptr(), _row(out, start), DTYPES[out.dtype],
        )  # fmt: skip

    in_ranges(len(out), out.numel(), run)


def look_up(packed: Tensor, bits: int, levels: Tensor, out: Tensor) -> None:
    """`out` [rows, count] = levels[code]; float32 levels [rows or 1, 2^bits]."""
    call, count = function("mz_look_up"), out.shape[1]
    stride = levels.shape[1] if len(levels) > 1 else 0

    def run(start: int, stop: int) -> None:
        scratch = torch.empty(count, dtype=torch.uint8, device="cpu")
        table = levels.data_ptr() + start * stride * levels.element_size()
        call(
            _row(packed, start), stop - start, count, bits, table, stride, scratch.data_ptr(),
            _row(out, start), DTYPES[out.dtype],
        )  # fmt: skip

    in_ranges(len(out), out.numel(), run)


def peaks(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, float32 [rows]; NaN where there is one."""
    call = function("mz_peaks")
    rows = _with_dense_rows(rows)
    out = torch.empty(len(rows), dtype=torch.float32, device="cpu")

    def run(start: int, stop: int) -> None:
        call(
            _row(rows, start), stop - start, rows.shape[1], rows.stride(0), _row(out, start),
            DTYPES[rows.dtype],
        )  # fmt: skip

    in_ranges(len(rows), rows.numel(), run)
    return out


@dataclass(frozen=True)
class Grid:
    """What inputs are rounded to: codes from `low` to `high`, stored plus `shift`."""

    zero: int
    low: int
    high: int
    shift: int


def quantize(rows: Tensor, scale: Tensor | None, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 codes + shift [rows, count], Σ (code - zero) [rows] and the scale [rows], float32.

    Without a scale each row has its own: its largest magnitude by the highest code. The sum of a
    row that holds NaN is NaN. Rows may lie further apart than their length.
    """
    call = function("mz_quantize")
    rows = _with_dense_rows(rows)
    codes = torch.empty(rows.shape, dtype=torch.uint8, device="cpu")
    sums = torch.empty(rows.shape[0], dtype=torch.float32, device="cpu")
    top = 0 if scale is not None else grid.high
    scales = (
        torch.empty(rows.shape[0], dtype=torch.float32, device="cpu")
        if scale is None
        else scale.contiguous()
    )

    def run(start: int, stop: int) -> None:
        call(
            _row(rows, start), stop - start, rows.shape[1], rows.stride(0), _row(scales, start),
            top, grid.zero, grid.low, grid.high, grid.shift, _row(codes, start), _row(sums, start),
            DTYPES[rows.dtype],
        )  # fmt: skip

    in_ranges(rows.shape[0], rows.numel(), run)
    return codes, sums, scales


def quantize_image(image: Tensor, scale: float, grid: Grid, out: Tensor, sums: Tensor) -> None:
    """As `quantize`, from a contiguous image [c, h, w] into `out` [h·w, c], sums [h·w]."""
    call = function("mz_quantize_pixels")
    channels, pixels = len(image), len(out)

    def run(start: int, stop: int) -> None:
        call(
            image.data_ptr(), channels, pixels, start, stop, scale, grid.zero, grid.low, grid.high,
            grid.shift, out.data_ptr(), sums.data_ptr(), DTYPES[image.dtype],
        )  # fmt: skip

    in_ranges(pixels, image.numel(), run)


def rescale(
    product: Tensor, scale: Tensor, sums: Tensor, columns: tuple[Tensor, Tensor], out: Tensor
) -> None:
    """`out` [rows, count] = (product - sums · shift) · scale + bias; `columns`: shift and bias.

    All float32 but `out`, whose rows may lie further apart than their length.
    """
    call = function("mz_rescale")
    shift, bias = columns

    def run(start: int, stop: int) -> None:
        call(
            _row(product, start), stop - start, product.shape[1], _row(scale, start),
            _row(sums, start), shift.data_ptr(), bias.data_ptr(), _row(out, start), out.stride(0),
            DTYPES[out.dtype],
        )  # fmt: skip

    in_ranges(len(product), product.numel(), run)


def _with_dense_rows(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _row(tensor: Tensor, index: int) -> int:
    """The address of a row."""
    return tensor.data_ptr() + index * tensor.stride(0) * tensor.element_size()


def in_ranges(rows: int, work: int, run: Callable[[int, int], None]) -> None:
    """Run over ranges of rows, on as many threads as torch uses where that pays."""
    threads = min(torch.get_num_threads(), rows, max(1, work // _WORTH_A_THREAD))
    if threads <= 1:
        run(0, rows)
        return
    bounds = [rows * index // threads for index in range(threads + 1)]
    # ctypes lets go of the interpreter while C runs.
    list(_pool().map(run, bounds[:-1], bounds[1:]))


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that are started as they are needed, and stay."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="mezzotint")


if hasattr(os, "register_at_fork"):
    # Threads do not survive a fork.
    os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def function(name: str) -> Callable[..., Any]:
    """One of the functions; ask `available()` first."""
    found = library()
    assert found is not None, "ask available() first"
    function: Callable[..., Any] = getattr(found, name)
    return function


_POINTER, _LONG, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
_ARGUMENTS = {
    "mz_unpack": (_POINTER, _LONG, _LONG, _INT, _POINTER),
    "mz_dequantize": (
        _POINTER, _LONG, _LONG, _INT, _POINTER, _POINTER, _LONG, _LONG, _POINTER, _POINTER, _INT,
    ),
    "mz_look_up": (_POINTER, _LONG, _LONG, _INT, _POINTER, _LONG, _POINTER, _POINTER, _INT),
    "mz_peaks": (_POINTER, _LONG, _LONG, _LONG, _POINTER, _INT),
    "mz_quantize": (
        _POINTER, _LONG, _LONG, _LONG, _POINTER, _FLOAT, _FLOAT, _FLOAT, _FLOAT, _INT, _POINTER,
        _POINTER, _INT,
    ),
    "mz_quantize_pixels": (
        _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT, _FLOAT, _FLOAT, _FLOAT, _INT, _POINTER,
        _POINTER, _INT,
    ),
    "mz_panels": (
        _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _INT, _INT, _POINTER, _POINTER, _POINTER,
    ),
    "mz_multiply": (_POINTER, _LONG, _LONG, _LONG, _LONG, _POINTER),
    "mz_products": (),
    "mz_version": (),
    "mz_rescale": (
        _POINTER, _LONG, _LONG, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _LONG, _INT,
    ),
}  # fmt: skip


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    for name, arguments in _ARGUMENTS.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    found.mz_products.restype = found.mz_version.restype = _LONG
    if found.mz_version() != VERSION:
        raise OSError("built of another version's sources")
    return found
