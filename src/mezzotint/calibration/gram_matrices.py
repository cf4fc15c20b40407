"""Gram matrices and means of what the quantizers of every layer are given."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from mezzotint.calibration.gathered_sums import Gathering, gathering
from mezzotint.calibration.watching import Watch, watch_together
from mezzotint.errors import CalibrationWarning
from mezzotint.models import Call
from mezzotint.plan import Choice, Tensors
from mezzotint.rounding import InputMoments

LABEL = "Gathering inputs"
"""Label of the progress of that stage."""

MEMORY = 2**31
"""Bytes of Gram matrices that are gathered in one pass over the calls."""

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
    asked = [MomentsOf(choices, tensors)]
    (found,) = moments_together(denoiser, asked, calls, grams=grams, memory=memory)
    return found


@dataclass(frozen=True, eq=False)
class MomentsOf:
    """Layers, each in one choice, whose inputs' moments are wanted; fields as of `input_moments`.

    Attributes:
        choices: the layers, and which structures they have.
        tensors: layer → what its structures have calibrated.
    """

    choices: Mapping[str, Choice]
    tensors: Mapping[str, Tensors] | None = None


def moments_together(
    denoiser: nn.Module,
    asked: Sequence[MomentsOf],
    calls: Sequence[Call],
    *,
    grams: bool,
    memory: int = MEMORY,
) -> list[dict[str, tuple[InputMoments, ...]]]:
    """The moments of `input_moments` for each of what is asked for, from the same runs.

    Raises:
        CalibrationError, PlanError, FormatError: as `input_moments`.
    """
    layers = {
        (index, name): gathering(name, denoiser, choice, len(calls), grams=grams)
        for index, each in enumerate(asked)
        for name, choice in each.choices.items()
    }
    passes = list(_passes(layers, memory))
    found: list[dict[str, tuple[InputMoments, ...]]] = [{} for _ in asked]
    for one in passes:
        watches = [
            Watch(each.choices, _of(index, one), each.tensors) for index, each in enumerate(asked)
        ]
        watch_together(denoiser, watches, calls, label=LABEL)
        for (index, name), sums in one.items():
            found[index][name] = sums.moments(on_disk=len(passes) > 1)
    for each in found if grams else ():
        _warn_of_scarce(each)
    return found


@dataclass(frozen=True)
class MomentsWork:
    """Work of `input_moments`.

    Attributes:
        passes: runs of all calls.
        products: multiplications and additions of the matrices.
    """

    passes: int
    products: int


def work_of_moments(
    denoiser: nn.Module,
    choices: Mapping[str, Choice],
    calls: int,
    rows: Mapping[str, int],
    *,
    grams: bool,
) -> MomentsWork:
    """Work of `input_moments`, before anything is run.

    Args:
        denoiser: the floating model.
        choices: as of `input_moments`.
        calls: how many there will be.
        rows: layer → inputs in all of them.
        grams: as of `input_moments`.

    Raises:
        PlanError: as `input_moments`.
    """
    layers = {
        (0, name): gathering(name, denoiser, choice, calls, grams=grams)
        for name, choice in choices.items()
    }
    products = sum(each.products(rows[name]) for (_, name), each in layers.items())
    return MomentsWork(len(list(_passes(layers, MEMORY))), products)


_Key = tuple[int, str]
"""Number of what is asked for, and a layer of it."""


def _of(index: int, layers: Mapping[_Key, Gathering]) -> dict[str, Gathering]:
    return {name: each for (number, name), each in layers.items() if number == index}


def _passes(layers: Mapping[_Key, Gathering], memory: int) -> Iterator[dict[_Key, Gathering]]:
    """Consecutive layers that fit into memory together."""
    current: dict[_Key, Gathering] = {}
    filled = 0
    for name, sums in layers.items():
        if current and filled + sums.nbytes > memory:
            yield current
            current, filled = {}, 0
        current[name] = sums
        filled += sums.nbytes
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
