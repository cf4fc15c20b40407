"""The choice of scales and zero points: of the full range, or of one that clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.formats.affine_grid import in_groups
from mezzotint.formats.chunks import PIECE
from mezzotint.formats.clip_errors import summed_errors
from mezzotint.formats.compiled import ClipCandidates
from mezzotint.formats.ranges import RangeSearch


@dataclass(frozen=True)
class ScaleChoice:
    """Scales and zero points of uniform quantization, for weights given in pieces of rows.

    Attributes:
        bits: width of the codes.
        symmetric: whether all zero points are the middle of the codes.
        per_tensor: one scale for all rows; else one per row or group.
        group_size: columns that share a scale; None for whole rows.
        dtype: of scales as stored; they are rounded to it.
    """

    bits: int
    symmetric: bool
    per_tensor: bool
    group_size: int | None
    dtype: torch.dtype

    def best(self, pieces: Sequence[Tensor], search: RangeSearch) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point of pieces that share them: of least Σ|w - ŵ|^p, block by block.

        There are no zero points where codes are symmetric. Of ranges that are equally good the
        widest is taken.
        """
        low, high = self._ranges(pieces)
        best_scale, best_zero = self._parameters(low, high, 1.0)
        if search.steps == 1:
            return best_scale, best_zero
        best_error = torch.full_like(low, math.inf)
        ratios = torch.tensor(search.ratios, dtype=torch.float64, device=low.device)
        # One piece of weights at a time, however small the blocks are.
        size = max(1, PIECE // low.numel())
        for tried in torch.split(ratios.view(-1, 1, 1, 1), size):
            scale, zero_point = self._parameters(low, high, tried)
            least, at = self._errors(pieces, scale, zero_point, search.power).min(0, keepdim=True)
            better = least[0] < best_error
            best_error = torch.where(better, least[0], best_error)
            best_scale = torch.where(better, scale.gather(0, at)[0], best_scale)
            if zero_point is not None and best_zero is not None:
                best_zero = torch.where(better, zero_point.gather(0, at)[0], best_zero)
        return best_scale, best_zero

    def _blocks(self, matrix: Tensor) -> Tensor:
        """[…, n]: the weights that share a scale are the last dimension (zero-padded)."""
        if self.per_tensor:
            return matrix.reshape(1, 1, -1)
        if self.group_size is None:
            return matrix.unsqueeze(1)
        # A group wider than a row ends with it.
        return in_groups(matrix, min(self.group_size, matrix.shape[1]))

    def _present(self, matrix: Tensor) -> Tensor:
        """1 for a weight, 0 for the padding of a row's last group; broadcasts to the blocks."""
        if self.group_size is None:
            return matrix.new_ones(1, dtype=torch.float32)
        return self._blocks(matrix.new_ones(1, matrix.shape[1], dtype=torch.float32))

    def _ranges(self, pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Ranges of pieces that share scales. Float64: the width of a range cannot overflow."""
        if self.symmetric and self.bits == 1:
            peak = self._mean_magnitude(pieces)
            return -peak, peak
        low, high = self._extremes(pieces[0])
        for lowest, highest in map(self._extremes, pieces[1:]):
            low, high = torch.minimum(low, lowest), torch.maximum(high, highest)
        if not self.symmetric:
            return low.clamp(max=0), high.clamp(min=0)
        peak = torch.maximum(-low, high)
        return -peak, peak

    def _extremes(self, piece: Tensor) -> tuple[Tensor, Tensor]:
        blocks = self._blocks(piece.float())
        return blocks.amin(-1, keepdim=True).double(), blocks.amax(-1, keepdim=True).double()

    def _mean_magnitude(self, pieces: Sequence[Tensor]) -> Tensor:
        """Per block; the padding of a row's last group does not count."""
        total = count = torch.zeros(1, dtype=torch.float64, device=pieces[0].device)
        for piece in pieces:
            blocks = self._blocks(piece.float())
            total = total + blocks.abs().sum(-1, keepdim=True, dtype=torch.float64)
            count = count + self._present(piece).expand_as(blocks).sum(-1, keepdim=True)
        return total / count

    def _parameters(
        self, low: Tensor, high: Tensor, ratio: float | Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Scale (as stored) and zero point, float32, of the range shrunk to `ratio`."""
        levels = 2**self.bits - 1
        if self.symmetric:
            levels = 1 if self.bits == 1 else levels - 1
        info = torch.finfo(self.dtype)
        # A dead block keeps a harmless scale of its own; its neighbours are not touched.
        exact = ((high - low) * ratio / levels).clamp(info.tiny, info.max)
        scale = exact.to(self.dtype)
        if self.symmetric:
            return scale.float(), None
        if self.dtype == torch.bfloat16:
            # 255 steps of a scale rounded down would miss the end of the range by half a step.
            scale = torch.where(scale < exact, scale.nextafter(scale.new_tensor(math.inf)), scale)
        scale = scale.float()
        zero_point = (-low * ratio / scale).round().clamp(0, 2**self.bits - 1)
        return scale, zero_point.float()

    def _errors(
        self, pieces: Sequence[Tensor], scale: Tensor, zero_point: Tensor | None, power: float
    ) -> Tensor:
        """Σ|w - ŵ|^power per candidate and block, float64, of the shape of `scale`."""
        total = torch.zeros_like(scale, dtype=torch.float64)
        for piece in pieces:
            size = min(self.group_size or piece.shape[1], piece.shape[1])
            shift = None if zero_point is None else zero_point.flatten(1)
            tried = ClipCandidates(self.bits, size, scale.flatten(1), shift)
            found = summed_errors(piece.float(), tried, power)
            if self.per_tensor:
                found = found.sum(1)
            total += found.view_as(total)
        total.mul_(scale.double().pow(power))
        # Where neither can be told, no range is better than the full one.
        return total.masked_fill_(total.isnan(), math.inf)
