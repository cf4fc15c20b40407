"""The C functions that choosing and rounding to a grid go through; see clip_search.c.

They make the same of a weight as the torch code of `mezzotint.formats`, which calls them.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from torch import Tensor

from mezzotint.formats import ClipCandidates
from mezzotint.formats.book_sums import BINS, LEVELS, PART
from mezzotint.runtime.cpu.library import fields, library, share, threads_for
from mezzotint.runtime.cpu.native import address

#: Passes over a weight's bytes that one candidate's errors take the time of.
_PASSES = 4


class _ClipErrors(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="weights scale zero out", longs="columns groups group_size candidates blocks",
        ints="shared highest two_values",
    )  # fmt: skip


class _BinTotals(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="weights scale of_counts of_sums counts sums", longs="rows columns part_rows"
    )


class _LevelProducts(ctypes.Structure):
    _fields_: ClassVar = fields(pointers="weights scale levels products squares", longs="columns")


class _LevelSteps(ctypes.Structure):
    _fields_: ClassVar = fields(pointers="counts sums step")


class _Paths(ctypes.Structure):
    _fields_: ClassVar = fields(pointers="step least next before", longs="places stages")


class _NearestLevels(ctypes.Structure):
    _fields_: ClassVar = fields(
        pointers="values scale borders out", longs="columns borders_of stride scale_stride"
    )


class GridPasses:
    """`CompiledPasses` in C."""

    def available(self) -> bool:
        """Return whether the package was built with them for this platform."""
        return library() is not None

    def clip_errors(self, matrix: Tensor, candidates: ClipCandidates) -> Tensor:
        """Σ(w - ŵ)² in steps of the scale, float64 [candidates, blocks]."""
        (rows, columns), size = matrix.shape, candidates.group_size
        scale, zero_point = candidates.scale.contiguous(), candidates.zero_point
        zero_point = None if zero_point is None else zero_point.contiguous()
        groups = -(-columns // size)
        blocks, tried = rows * groups, len(scale)
        out = torch.empty(tried, blocks, dtype=torch.float64, device="cpu")
        work = _ClipErrors(
            matrix.data_ptr(), scale.data_ptr(), address(zero_point), out.data_ptr(), columns,
            groups, size, tried, blocks, scale.shape[1] == 1, 2**candidates.bits - 1,
            candidates.bits == 1 and zero_point is None,
        )  # fmt: skip
        cost = _PASSES * tried * matrix.nbytes
        share("mz_clip_errors", work, blocks * tried, threads_for(blocks * tried, cost))
        return out

    def bin_totals(
        self, matrix: Tensor, scale: Tensor, of_counts: Tensor, of_sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Totals of `PART` rows each, float64 [parts, bins]."""
        rows, columns = matrix.shape
        parts = -(-rows // PART)
        scale, of_counts, of_sums = (each.contiguous() for each in (scale, of_counts, of_sums))
        counts, sums = torch.empty(2, parts, BINS, dtype=torch.float64, device="cpu").unbind()
        work = _BinTotals(
            matrix.data_ptr(), scale.data_ptr(), of_counts.data_ptr(), of_sums.data_ptr(),
            counts.data_ptr(), sums.data_ptr(), rows, columns, PART,
        )  # fmt: skip
        share("mz_bin_totals", work, parts, threads_for(parts, _PASSES * matrix.nbytes))
        return counts, sums

    def level_products(
        self, matrix: Tensor, scale: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Σ w · level and Σ level² of each row, float64 [rows]."""
        rows, columns = matrix.shape
        scale, levels = scale.contiguous(), levels.contiguous()
        products, squares = torch.empty(2, rows, dtype=torch.float64, device="cpu").unbind()
        work = _LevelProducts(
            matrix.data_ptr(), scale.data_ptr(), levels.data_ptr(), products.data_ptr(),
            squares.data_ptr(), columns,
        )  # fmt: skip
        share("mz_level_products", work, rows, threads_for(rows, _PASSES * matrix.nbytes))
        return products, squares

    def level_steps(self, counts: Tensor, sums: Tensor) -> Tensor:
        """Costs of a level after another, float64 [to, from]."""
        step = torch.empty(LEVELS, LEVELS, dtype=torch.float64, device="cpu")
        counts, sums = counts.contiguous(), sums.contiguous()
        work = _LevelSteps(counts.data_ptr(), sums.data_ptr(), step.data_ptr())
        share("mz_level_steps", work, LEVELS, 1)
        return step

    def ways(self, first: Tensor, step: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """Least costs, float64 [places], and the places before, int32 [stages, places]."""
        places = len(first)
        step, least, after = step.contiguous(), first.clone(), torch.empty_like(first)
        before = torch.empty(stages, places, dtype=torch.int32, device="cpu")
        work = _Paths(
            step.data_ptr(), least.data_ptr(), after.data_ptr(), before.data_ptr(), places, stages
        )
        share("mz_paths", work, 1, 1)
        return least, before

    def nearest_levels(self, matrix: Tensor, scale: Tensor | None, borders: Tensor) -> Tensor:
        """Numbers of borders below each value, uint8 [rows, n]."""
        borders = borders.contiguous()
        scale = None if scale is None else scale.contiguous()
        out = torch.empty(matrix.shape, dtype=torch.uint8, device="cpu")
        count = borders.shape[1]
        work = _NearestLevels(
            matrix.data_ptr(), address(scale), borders.data_ptr(), out.data_ptr(),
            matrix.shape[1], count, count if len(borders) > 1 else 0,
            int(scale is not None and len(scale) > 1),
        )  # fmt: skip
        cost = count * matrix.numel()
        share("mz_nearest_levels", work, len(matrix), threads_for(len(matrix), cost))
        return out
