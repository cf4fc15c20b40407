"""Calls of a denoiser: moved between devices, replayed, completed with their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mezzotint.errors import ModelError, UsageError, first_line


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a denoiser's `forward`: what went in and, once run, the tensor that came out.

    `step` counts the distinct timesteps of one pipeline run from 0; `timestep` is the value the
    denoiser was given, in the units of its pipeline (0–1000, or 0–1 for some flow models).
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor | None = None
    step: int = 0
    timestep: float = math.nan

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Call:
        """The same call elsewhere or in another precision.

        `dtype` applies to floating-point tensors of two or more dimensions. Timesteps and guidance
        scales are scalars or vectors and keep their precision: bfloat16 has no 999.
        """

        def moved(tensor: Tensor) -> Tensor:
            casts = tensor.is_floating_point() and tensor.ndim >= 2
            return tensor.to(device=device, dtype=dtype if casts else None)

        return self.mapped(moved)

    def copied(self) -> Call:
        """The same call with tensors of its own, detached."""
        return self.mapped(lambda tensor: tensor.detach().clone())

    def run(self, denoiser: nn.Module) -> Tensor:
        """The output tensor of `denoiser` on these arguments.

        It is given copies: models may change their inputs in place, and a call is run many times.
        """
        own = Call(self.args, self.kwargs).copied()
        return output_tensor(denoiser(*own.args, **own.kwargs))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Call:
        """The same call with every tensor, its output too, replaced."""
        return replace(
            self,
            args=map_tensors(self.args, function),
            kwargs=map_tensors(self.kwargs, function),
            output=map_tensors(self.output, function),
        )


def on_device(calls: tuple[Call, ...], denoiser: nn.Module) -> tuple[Call, ...]:
    """Recorded calls where the denoiser is."""
    device = device_of(denoiser)
    return tuple(call.to(device) for call in calls)


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's first parameter; the CPU where it has none."""
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device


Example: TypeAlias = Call | tuple[tuple[Any, ...], Mapping[str, Any]]
"""A recorded call, or the arguments of one: (args, kwargs)."""


@torch.no_grad()
def completed_calls(denoiser: nn.Module, examples: Iterable[Example]) -> tuple[Call, ...]:
    """Calls with their outputs: those that lack one are run on the denoiser.

    Raises:
        UsageError: there is none, or one is neither a call nor a pair of arguments, gives
            arguments on which the denoiser fails, or has an empty output.
        ModelError: the denoiser returns no floating tensor.
    """
    calls = []
    if not isinstance(examples, Iterable):
        raise UsageError(
            f"calls: is a {type(examples).__name__}; give a list of recorded calls, or of pairs of "
            "a tuple of arguments and a dictionary of keyword arguments"
        )
    for index, example in enumerate(examples):
        call = example if isinstance(example, Call) else _call_of(index, example)
        if call.output is None:
            call = _completed(index, call.to(device_of(denoiser)), denoiser)
        if call.output is not None and not call.output.numel():
            raise UsageError(f"calls: number {index} has an empty output; give one sample at least")
        calls.append(call)
    if not calls:
        raise UsageError("calls: none given; record one at least")
    return tuple(calls)


def _completed(index: int, call: Call, denoiser: nn.Module) -> Call:
    """The call with its output; whatever the denoiser's own code raises names the call."""
    try:
        output = call.run(denoiser)
    except ModelError:
        raise
    except Exception as cause:  # whatever a module's own code may raise
        raise UsageError(
            f"calls: {type(denoiser).__name__} fails on number {index} "
            f"({first_line(cause)}); give the arguments that its forward takes"
        ) from cause
    return replace(call, output=output.detach().clone())


def _call_of(index: int, example: Any) -> Call:
    match example:
        case (tuple(args), Mapping() as kwargs):
            return Call(args, kwargs)
    raise UsageError(
        f"calls: number {index} is a {type(example).__name__}; give recorded calls, or pairs of "
        "a tuple of arguments and a dictionary of keyword arguments"
    )


def output_tensor(output: Any) -> Tensor:
    """The tensor in what a denoiser's `forward` returns: a tensor, a tuple or a model output.

    A list with a tensor for each sample, as Z-Image returns one, is stacked.

    Raises:
        ModelError: there is none, it holds integers, or samples differ in shape.
    """
    first = output
    if not isinstance(output, Tensor):
        try:
            first = output[0]
        except (LookupError, TypeError) as cause:
            raise ModelError(
                f"the denoiser returns {type(output).__name__} without a first tensor; it has to "
                "return a tensor, a tuple that begins with one, or a model output of diffusers"
            ) from cause
    if isinstance(first, list) and first and all(isinstance(each, Tensor) for each in first):
        first = _stacked(first)
    if not isinstance(first, Tensor):
        raise ModelError(
            f"the denoiser returns {type(first).__name__} where a tensor is expected; it has to "
            "return a tensor, or a list with one for each sample"
        )
    if not first.is_floating_point():
        raise ModelError(
            f"the denoiser returns a tensor of {first.dtype} where a floating one is expected; "
            "quantize what computes it, without the rounding after it"
        )
    return first


def _stacked(samples: list[Tensor]) -> Tensor:
    shapes = sorted({tuple(sample.shape) for sample in samples})
    if len(shapes) > 1:
        raise ModelError(
            f"the denoiser returns samples of shapes {', '.join(map(str, shapes))} in one call; "
            "give it images of one size"
        )
    return torch.stack(samples)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in nested lists, tuples and dicts replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, function) for item in value)
    return value
