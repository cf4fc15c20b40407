"""Passes over a weight that compiled code may take over from torch, with the same results.

This package knows tensors only, so whoever has compiled functions hands them in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClipCandidates:
    """Scales and zero points that are tried on the same weights.

    Attributes:
        bits: width of the codes.
        group_size: columns that share a scale, the last ones of a row excepted.
        scale: float32 [candidates, blocks], a block being a group of a row; or [candidates, 1].
        zero_point: whole float32 of the same shape, each one of the codes; None for symmetric
            codes.
    """

    bits: int
    group_size: int
    scale: Tensor
    zero_point: Tensor | None


class CompiledPasses(Protocol):
    """Functions that give what torch gives, bit for bit, of contiguous tensors on the CPU."""

    def available(self) -> bool:
        """Return whether they were built for this platform."""

    def clip_errors(self, matrix: Tensor, candidates: ClipCandidates) -> Tensor:
        """`squared_errors` of clip_errors.py."""

    def bin_totals(
        self, matrix: Tensor, scale: Tensor, of_counts: Tensor, of_sums: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`bin_totals` of book_sums.py, of `PART` rows each: float64 [parts, bins]."""

    def level_products(
        self, matrix: Tensor, scale: Tensor, levels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`level_products` of book_sums.py."""

    def level_steps(self, counts: Tensor, sums: Tensor) -> Tensor:
        """`level_steps` of book_sums.py."""

    def ways(self, first: Tensor, step: Tensor, stages: int) -> tuple[Tensor, Tensor]:
        """The cheapest ways to each place, as cheapest_path.py finds them."""

    def nearest_levels(self, matrix: Tensor, scale: Tensor | None, borders: Tensor) -> Tensor:
        """`nearest_levels` of lookup_grid.py."""


_HANDED_IN: list[CompiledPasses] = []


def use_compiled(passes: CompiledPasses) -> None:
    """Take these over torch from now on, where they are available."""
    _HANDED_IN[:] = [passes]


def compiled_for(*tensors: Tensor | None) -> CompiledPasses | None:
    """Compiled functions that work on these tensors; None where torch has to."""
    for passes in _HANDED_IN:
        on_cpu = all(each is None or each.device.type == "cpu" for each in tensors)
        if on_cpu and passes.available():
            return passes
    return None
