"""Inputs of every layer in one call of the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.models import (
    Call,
    Sampling,
    denoising_module,
    device_of,
    find_denoiser,
    layer_input,
    record_calls,
    record_first_calls,
    usual_sampling,
)
from mezzotint.plan import Structure


@dataclass(frozen=True, eq=False)
class Sample:
    """One distinct piece of work: a layer that does it, and the input it was given."""

    layer: str
    x: Tensor


@dataclass(frozen=True, eq=False)
class Runs:
    """The work of one denoiser call.

    Attributes:
        layers: layer → what each of its runs was, in words; layers that do the same under the same
            words take the same time. Empty where the call does not reach the layer.
        samples: words → a layer and its input.
    """

    layers: Mapping[str, tuple[str, ...]]
    samples: Mapping[str, Sample]


_PROMPT = "a photo of a cat"
"""Prompt of calls that are timed, where none is given."""


@dataclass(frozen=True)
class Work:
    """Work that a pipeline is profiled at.

    Attributes:
        batch: images per call. Under classifier-free guidance the denoiser sees twice as many.
        sampling: whose images are repeated or cut to `batch`; by default of one usual prompt.
        structures: layer → those that it will have when packed. They count in what whole packed
            denoisers take.
    """

    batch: int = 1
    sampling: Sampling | None = None
    structures: Mapping[str, tuple[Structure, ...]] = field(default_factory=dict)


def first_call(pipe: DiffusionPipeline, sampling: Sampling | None, batch: int) -> Call:
    """The first call that the pipeline makes of its denoiser for `batch` images, where that is.

    Args:
        pipe: the pipeline.
        sampling: whose images are repeated or cut; by default of one usual prompt.
        batch: their number.
    """
    images = (sampling or usual_sampling(pipe, (_PROMPT,))).repeated(batch)
    (call,) = record_calls(pipe, replace(images, batch=batch), limit=1)
    return call.to(device_of(find_denoiser(pipe)[1]))


def first_calls(
    pipe: DiffusionPipeline, sampling: Sampling | None, batch: int = 1
) -> tuple[Call, ...]:
    """The first call of each of the pipeline's denoisers for `batch` images, where those are.

    Args:
        pipe: the pipeline.
        sampling: whose images are repeated or cut; by default of a usual prompt.
        batch: their number.
    """
    images = (sampling or usual_sampling(pipe, (_PROMPT,))).repeated(batch)
    calls = record_first_calls(pipe, replace(images, batch=batch))
    return tuple(call.to(device_of(denoising_module(pipe))) for call in calls)


@dataclass(frozen=True)
class Subject:
    """Subject of a profile: a floating denoiser, one call of it, and the work seen in that call.

    Attributes:
        model: what the user calls it.
        work: what was asked for.
    """

    denoiser: nn.Module
    call: Call
    runs: Runs
    model: str | None
    work: Work

    @property
    def device(self) -> torch.device:
        """Device that it computes on."""
        return next(self.denoiser.parameters()).device


@torch.no_grad()
def watch_runs(denoiser: nn.Module, names: Sequence[str], call: Call) -> Runs:
    """Run `call` and look at the inputs of the named Linear and Conv2d layers."""
    layers: dict[str, list[str]] = {name: [] for name in names}
    samples: dict[str, Sample] = {}

    def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def watch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # A copy has its strides in the open: dense, or else in order.
            x = layer_input(args, kwargs).detach().clone()
            words = _words(layer, x)
            layers[name].append(words)
            samples.setdefault(words, Sample(name, x))

        return watch

    with ExitStack() as hooks:
        for name in names:
            layer = denoiser.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(watching(name), with_kwargs=True))
        call.run(denoiser)
    return Runs({name: tuple(runs) for name, runs in layers.items()}, samples)


def _words(layer: nn.Module, x: Tensor) -> str:
    """Everything that decides how long a float or packed layer takes for `x`."""
    weight = layer.get_parameter("weight")
    parts = [type(layer).__name__, _sizes(weight.shape)]
    if isinstance(layer, nn.Conv2d):
        parts += [
            f"{name} {_sizes(value) if isinstance(value, tuple) else value}"
            for name, value, usual in (
                ("stride", layer.stride, (1, 1)),
                ("padding", layer.padding, (0, 0)),
                ("dilation", layer.dilation, (1, 1)),
                ("groups", layer.groups, 1),
                ("padding mode", layer.padding_mode, "zeros"),
            )
            if value != usual
        ]
    if not weight.is_contiguous():
        parts.append(f"weight strides {_sizes(weight.stride())}")
    if layer.bias is not None:
        parts.append("bias")
    parts.append(f"{str(x.dtype).removeprefix('torch.')} input {_sizes(x.shape)}")
    if not x.is_contiguous():
        parts.append(f"strides {_sizes(x.stride())}")
    return ", ".join(parts)


def _sizes(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
