"""Time that packed layers take within the denoiser, beyond that of their separate runs.

A layer that is run again and again may find its code and its weights in the caches; within the
call, others run between. What floating layers lose there is part of the call's rest. What packed
layers lose is measured here: on whole denoisers, one for each activation format.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, Plan, Tensors
from mezzotint.profiling.profile import Figure, LayerProfile
from mezzotint.profiling.runs import Subject
from mezzotint.profiling.timer import Timer
from mezzotint.runtime import Calibration, InputRange, packed_copy, placeholders, shape_of

_BITS = 4
"""Narrow weights, which are unpacked at every call, stand for the others."""


def representatives(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """One quantized choice for each activation format."""
    found: dict[str, Choice] = {}
    for choice in choices:
        if choice.weight_format is None:
            continue
        before = found.setdefault(choice.activation, choice).weight_format
        if before is not None and _distance(choice.weight_format.bits) < _distance(before.bits):
            found[choice.activation] = choice
    return tuple(found.values())


def _distance(bits: float) -> float:
    return abs(bits - _BITS)


def measure_within(subject: Subject, choice: Choice, names: Sequence[str], timer: Timer) -> float:
    """Time of a call with these layers packed as `choice`, over that of the floating denoiser."""
    structures = subject.work.structures
    choices = {name: choice.with_structures(*structures.get(name, ())) for name in names}
    ranges: dict[str, tuple[InputRange, ...]] = {}
    tensors: dict[str, Tensors] = {}
    for name, each in choices.items():
        x = subject.runs.samples[subject.runs.layers[name][0]].x
        low, high = x.aminmax()
        ranges[name] = (InputRange(float(low), float(high)),) * each.parts
        layer = subject.denoiser.get_submodule(name)
        tensors[name] = placeholders(each.structures, shape_of(layer), x)
    # Times do not depend on values, or on where weights are clipped: placeholders and the
    # quickest search will do.
    plan = Plan(choices, encoding=Encoding(MINMAX))
    packed = packed_copy(subject.denoiser, plan, Calibration(ranges, tensors))
    functions: dict[str, Callable[[], object]] = {
        "floating": partial(subject.call.run, subject.denoiser),
        "packed": partial(subject.call.run, packed),
    }
    return timer(functions, subject.device)["packed"].ratio


def with_delays(
    layers: Mapping[str, LayerProfile], whole: float, ratios: Mapping[Choice, float]
) -> dict[str, LayerProfile]:
    """Figures that add up to what `measure_within` found for denoisers of packed layers.

    Args:
        layers: figures of layers that were timed one by one.
        whole: milliseconds of a call of the floating denoiser.
        ratios: representative choice → what `measure_within` found.
    """
    found = dict(layers)
    for choice, ratio in ratios.items():
        timed = [layer for layer in layers.values() if choice in layer.figures and layer.runs]
        alone = math.fsum(layer.figures[choice].milliseconds for layer in timed)
        floating = math.fsum(layer.floating for layer in timed)
        missing = ratio * whole - (whole - floating + alone)
        runs = sum(len(layer.runs) for layer in timed)
        # A loss is the same for large and small layers; a gain cannot be, or some would take less
        # than no time.
        delay = max(missing, 0.0) / runs if runs else 0.0
        factor = max(0.0, 1 + min(missing, 0.0) / alone) if alone else 1.0
        for name, layer in found.items():
            found[name] = replace(
                layer,
                figures={
                    each: Figure(
                        factor * figure.milliseconds + delay * len(layer.runs), figure.kernel
                    )
                    if each.quantized and each.activation == choice.activation
                    else figure
                    for each, figure in layer.figures.items()
                },
            )
    return found
