"""Times of a floating denoiser of which only the packed form is at hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.evaluation import packed_denoisers, run_calls
from mezzotint.models import Call, Pipeline, find_denoisers, layer_input, with_components
from mezzotint.profiling import interleaved_medians, wait_for_accelerator
from mezzotint.runtime import PackedLayer, dequantize_module, packed_layers

Clock: TypeAlias = Callable[[], float]


_GEOMETRY = ("stride", "padding", "dilation", "groups", "padding_mode")
"""Attributes of a convolution that decide about its time beside the shape of its weight."""


_REPEATS = 2


def stand_in(pipe: DiffusionPipeline) -> Pipeline:
    """The pipeline with floating copies of its packed denoisers, which take as long as they did.

    Their weights are the dequantized ones, which no time depends on.
    """
    found = find_denoisers(pipe)
    floating = {
        name: dequantize_module(copy.deepcopy(found[name])) for name in packed_denoisers(pipe)
    }
    made: Pipeline = with_components(pipe, floating)
    return made


def floating_bytes(pipe: DiffusionPipeline) -> int:
    """Bytes that the packed layers of a pipeline's denoisers would take in floating point."""
    found = find_denoisers(pipe)
    return sum(
        math.prod(layer.weight_shape) * _dtype_of(layer, found[name]).itemsize
        for name in packed_denoisers(pipe)
        for layer in packed_layers(found[name]).values()
    )


def _dtype_of(layer: PackedLayer, denoiser: nn.Module) -> torch.dtype:
    parameters = [*layer.parameters(), *denoiser.parameters()]
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)


@dataclass
class _Work:
    """Runs of packed layers that would be the same piece of work in floating point."""

    layer: PackedLayer
    x: Tensor
    runs: int = 0


@dataclass
class _Watched:
    """Seconds of each run of a packed layer in one run of the calls, and their distinct work."""

    seconds: list[float] = field(default_factory=list)
    works: dict[Any, _Work] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """Seconds of the calls of a packed denoiser, and as they would be if no layer were packed."""

    packed: float
    floating: float


@torch.no_grad()
def estimated(module: nn.Module, calls: Sequence[Call], clock: Clock) -> Estimate:
    """Seconds of the calls, packed and floating; no more than one layer is ever unpacked.

    The packed layers are timed within two runs of the calls, and each distinct piece of their work
    alone, in floating point. The rest of a call stays as it is. All are the least of the repeats:
    they are taken one after another, and whatever else the machine does must not tell them apart.

    Args:
        module: the packed denoiser, or several in a joint module; already run once.
        calls: of it.
        clock: returns seconds.
    """
    layers: list[list[float]] = []
    rests: list[float] = []
    works: dict[Any, _Work] = {}
    for _ in range(_REPEATS):
        watched = _Watched()
        with _watching(module, watched, clock):
            run = {"calls": partial(run_calls, module, calls)}
            found = interleaved_medians(run, repeats=1, warmup=0, clock=clock)
        layers.append(watched.seconds)
        rests.append(found["calls"].median - math.fsum(watched.seconds))
        works = watched.works
    rest = max(min(rests), 0.0)
    packed = math.fsum(map(min, *layers))
    floating = 0.0
    for work in works.values():
        run = {"floating": partial(work.layer.to_float(work.x.dtype), work.x)}
        found = interleaved_medians(run, repeats=_REPEATS, warmup=1, clock=clock)
        floating += work.runs * found["floating"].minimum
    return Estimate(rest + packed, rest + floating)


@contextmanager
def _watching(module: nn.Module, watched: _Watched, clock: Clock) -> Iterator[None]:
    begun: list[float] = []

    def read() -> float:
        wait_for_accelerator()
        return clock()

    def before(layer: PackedLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = layer_input(args, kwargs)
        key = _key(layer, x)
        if key not in watched.works:
            watched.works[key] = _Work(layer, x.detach().clone())
        watched.works[key].runs += 1
        begun.append(read())

    def after(layer: nn.Module, args: tuple[Any, ...], output: object) -> None:
        watched.seconds.append(read() - begun.pop())

    with ExitStack() as hooks:
        for layer in packed_layers(module).values():
            hooks.enter_context(layer.register_forward_pre_hook(before, with_kwargs=True))
            hooks.enter_context(layer.register_forward_hook(after))
        yield


def _key(layer: PackedLayer, x: Tensor) -> object:
    """Everything that decides how long the floating layer takes."""
    geometry = tuple(getattr(layer, name, None) for name in _GEOMETRY)
    return tuple(layer.weight_shape), geometry, tuple(x.shape), x.stride(), x.dtype
