"""Sums over the inputs of a layer's quantizers, and the averages that come of them."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mezzotint.calibration.input_rows import input_rows
from mezzotint.calibration.watching import extremes, layer_of
from mezzotint.errors import CalibrationError, PlanError
from mezzotint.plan import Choice, LayerShape
from mezzotint.rounding import InputMoments
from mezzotint.runtime import Operation, operation_of, quantizers, shape_of

LARGEST = 12288
"""Columns of one Gram matrix; layers of more have several, of whole input channels."""

_FEWEST_ROWS = 8192
_ROWS_PER_COLUMN = 2


def gathering(
    name: str, denoiser: nn.Module, choice: Choice, calls: int, *, grams: bool
) -> Gathering:
    """Empty sums of a layer's quantizers, for so many calls.

    Raises:
        PlanError: it is neither a Linear nor a Conv2d, or cannot have its structures.
    """
    layer = layer_of(denoiser, name)
    operation = operation_of(layer)
    try:
        shapes = [shape for _, shape in quantizers(choice.structures, shape_of(layer))]
    except PlanError as cause:
        raise PlanError(f"layer {name}: {cause}") from cause
    return Gathering(name, [Sums(operation, shape, calls, grams) for shape in shapes])


@dataclass(eq=False)
class Gathering:
    """The sums of one layer's quantizers; a watcher."""

    name: str
    parts: list[Sums]

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices, once there are any."""
        return sum(part.nbytes for part in self.parts)

    def products(self, rows: int) -> int:
        """Multiplications and additions of the matrices, where the layer is given so many rows."""
        return sum(
            2 * min(rows, part.quota * part.calls) * (part.nbytes // 4) for part in self.parts
        )

    def see(self, parts: tuple[Tensor, ...]) -> None:
        """Add to the sums of each quantizer what it is given."""
        for sums, x in zip(self.parts, parts, strict=True):
            extremes(x)
            sums.add(x)

    def end_call(self) -> None:
        """Nothing: every run counts by itself."""

    def moments(self, *, on_disk: bool) -> tuple[InputMoments, ...]:
        """The averages; the sums are gone then."""
        if not all(part.count for part in self.parts):
            raise CalibrationError(
                f"layer {self.name}: no recorded call reaches it, so nothing is known of its "
                "inputs; give it rounding 'nearest' without bias correction"
            )
        return tuple(part.taken(self.name, on_disk=on_disk) for part in self.parts)


@dataclass(eq=False)
class Sums:
    """Σ x xᵀ and Σ x over some of the inputs of one quantizer.

    Products are summed over one run in float32, as matrix products sum them; the few runs are
    added up in float32, means in float64.

    Attributes:
        operation: that of the layer.
        shape: of the quantizer's weight.
        calls: to come, among which the rows are spread.
        grams: whether products are summed, too.
    """

    operation: Operation
    shape: LayerShape
    calls: int
    grams: bool
    count: int = field(default=0, init=False)
    runs: int = field(default=0, init=False)
    total: Tensor | None = field(default=None, init=False)
    products: list[Tensor] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.sizes = _block_sizes(self.shape)
        wanted = max(_FEWEST_ROWS, _ROWS_PER_COLUMN * max(self.sizes))
        self.quota = math.ceil(wanted / max(1, self.calls))

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices."""
        return 4 * self.shape.groups * sum(n * n for n in self.sizes) if self.grams else 0

    def add(self, x: Tensor) -> None:
        """Take some rows of one run's input."""
        rows = input_rows(x, self.operation, self.shape, self.quota, self.runs)
        self.runs += 1
        self.count += rows.shape[1]
        total = rows.sum(1, dtype=torch.float64)
        self.total = total if self.total is None else self.total.add_(total)
        if not self.grams:
            return
        if not self.products:
            groups = self.shape.groups
            self.products = [rows.new_zeros(groups, n, n) for n in self.sizes]
        for product, block in zip(self.products, torch.split(rows, self.sizes, -1), strict=True):
            product.baddbmm_(block.transpose(1, 2), block)

    def taken(self, layer: str, *, on_disk: bool) -> InputMoments:
        """The averages, moved to the CPU or to temporary files."""
        assert self.total is not None
        mean = (self.total / self.count).float().cpu()
        blocks = []
        while self.products:
            block = self.products.pop(0).div_(self.count)
            if not bool(torch.isfinite(block.sum(dtype=torch.float64))):
                raise CalibrationError(f"layer {layer}: the squares of its inputs overflow float32")
            blocks.append(_on_disk(block) if on_disk else block.cpu())
        self.total = None
        return InputMoments(tuple(blocks), mean, self.count)


def _block_sizes(shape: LayerShape) -> list[int]:
    """Columns of each Gram matrix: whole input channels, spread evenly."""
    channels, kernel = shape.weight[1], math.prod(shape.weight[2:])
    blocks = min(channels, math.ceil(channels * kernel / LARGEST))
    edges = [channels * index // blocks for index in range(blocks + 1)]
    return [(last - first) * kernel for first, last in pairwise(edges)]


def _on_disk(tensor: Tensor) -> Tensor:
    """A copy in a memory-mapped file, whose name is gone and whose space goes with the tensor."""
    prefix = "mezzotint-moments-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        file = Path(folder, "values")
        try:
            with file.open("wb") as opened:
                opened.truncate(tensor.nbytes)
                if sys.platform == "linux":
                    # Lack of room is an error here, and would be a fault once it is written to.
                    os.posix_fallocate(opened.fileno(), 0, tensor.nbytes)
        except OSError as cause:
            raise CalibrationError(
                f"{folder}: there is no room for {tensor.nbytes:,} bytes of moments "
                f"({cause.strerror}); name another folder in TMPDIR"
            ) from cause
        mapped = torch.from_file(str(file), shared=True, size=tensor.numel(), dtype=tensor.dtype)
        return mapped.view(tensor.shape).copy_(tensor)
