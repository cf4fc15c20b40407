"""Gram matrices and means of what the quantizers of every layer are given."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.calibration.input_rows import input_rows
from mezzotint.calibration.watching import extremes, layer_of, watch_inputs
from mezzotint.errors import CalibrationError, CalibrationWarning, PlanError
from mezzotint.models import Call
from mezzotint.plan import Choice, LayerShape, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime import Operation, operation_of, quantizers, shape_of

LARGEST = 12288
"""Columns of one Gram matrix; layers of more have several, of whole input channels."""

MEMORY = 2**31
"""Bytes of Gram matrices that are gathered in one pass over the calls."""

_FEWEST_ROWS = 8192
_ROWS_PER_COLUMN = 2
_SCARCE = 100
"""Inputs per sample from which on a layer is warned of."""


def input_moments(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: Sequence[Call],
    *,
    grams: bool,
    tensors: Mapping[str, Tensors] | None = None,
    memory: int = MEMORY,
) -> dict[str, tuple[InputMoments, ...]]:
    """Moments of every layer's inputs, float32 on the CPU: one for each quantizer.

    Inputs are counted as they are before they are rounded, and only what a quantizer sees of
    them, as the layer's structures say. Of many only some are taken, spread evenly over samples,
    positions and calls: two for every column of a matrix, and 8192 at least. The same calls give
    the same moments.

    The calls are run once for as many layers as `memory` has room for. Where that takes several
    passes, finished matrices move to temporary files without a name, which are read where they
    are needed and vanish with the moments: 4 · k² bytes for a layer of k inputs.

    Args:
        denoiser: the floating model.
        choices: the layers, and which structures they have; formats do not matter.
        calls: recorded calls.
        grams: False for the means alone, which take neither memory nor further passes.
        tensors: layer → what its structures have calibrated, for those whose quantizers see
            something that depends on it.
        memory: bytes of matrices in one pass, beside what a call takes. A layer that needs more
            has a pass of its own.

    Raises:
        CalibrationError: a layer is never called, or sees NaN or infinity; layer and call are
            named.
        PlanError: a layer is neither a Linear nor a Conv2d, or cannot have its structures.
        FormatError: a structure's tensor is lacking.
    """
    layers = {
        name: _gathering(name, denoiser, choice, len(calls), grams=grams)
        for name, choice in choices.items()
    }
    passes = list(_passes(layers, memory))
    found: dict[str, tuple[InputMoments, ...]] = {}
    told = iter(track(layers, "Gathering inputs"))
    next(told, None)
    for one in passes:
        watch_inputs(denoiser, choices, one, calls, tensors)
        for name, gathering in one.items():
            found[name] = gathering.moments(on_disk=len(passes) > 1)
            next(told, None)
    if grams:
        _warn_of_scarce(found)
    return {name: found[name] for name in choices}


def _gathering(
    name: str, denoiser: nn.Module, choice: Choice, calls: int, *, grams: bool
) -> _Gathering:
    layer = layer_of(denoiser, name)
    operation = operation_of(layer)
    try:
        shapes = [shape for _, shape in quantizers(choice.structures, shape_of(layer))]
    except PlanError as cause:
        raise PlanError(f"layer {name}: {cause}") from cause
    return _Gathering(name, [_Sums(operation, shape, calls, grams) for shape in shapes])


def _passes(layers: Mapping[str, _Gathering], memory: int) -> Iterator[dict[str, _Gathering]]:
    """Consecutive layers that fit into memory together."""
    current: dict[str, _Gathering] = {}
    filled = 0
    for name, gathering in layers.items():
        if current and filled + gathering.nbytes > memory:
            yield current
            current, filled = {}, 0
        current[name] = gathering
        filled += gathering.nbytes
    if current:
        yield current


def _warn_of_scarce(found: Mapping[str, tuple[InputMoments, ...]]) -> None:
    scarce = {
        name: (part.count, part.columns)
        for name, parts in found.items()
        for part in parts
        if part.count * _SCARCE < part.columns
    }
    if scarce:
        name, (count, columns) = next(iter(scarce.items()))
        others = f" and {len(scarce) - 1} other layer(s)" if len(scarce) > 1 else ""
        warnings.warn(
            f"layer {name}{others}: {count} input(s) tell little of how {columns} go together, so "
            "error feedback does little there; record more calls",
            CalibrationWarning,
            stacklevel=3,
        )


@dataclass(eq=False)
class _Gathering:
    """The sums of one layer's quantizers; a watcher."""

    name: str
    parts: list[_Sums]

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices, once there are any."""
        return sum(part.nbytes for part in self.parts)

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
class _Sums:
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
