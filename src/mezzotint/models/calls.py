"""Calls of a denoiser: recorded from a pipeline, moved between devices, replayed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.errors import ModelError, UsageError
from mezzotint.models.denoiser import TIME_ARGUMENTS, find_denoiser
from mezzotint.models.sampling import run_batches
from mezzotint.plan import Sampling


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

        return self._mapped(moved)

    def run(self, denoiser: nn.Module) -> Tensor:
        """The output tensor of `denoiser` on these arguments."""
        return output_tensor(denoiser(*self.args, **self.kwargs))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Call:
        return replace(
            self,
            args=_map_tensors(self.args, function),
            kwargs=_map_tensors(self.kwargs, function),
            output=_map_tensors(self.output, function),
        )


def on_device(calls: tuple[Call, ...], denoiser: nn.Module) -> tuple[Call, ...]:
    """Recorded calls where the denoiser is."""
    device = next(denoiser.parameters()).device
    return tuple(call.to(device) for call in calls)


@torch.no_grad()
def record_calls(
    pipe: DiffusionPipeline, sampling: Sampling, *, limit: int | None = None
) -> tuple[Call, ...]:
    """Run the pipeline and return its denoiser's calls, in order, with their outputs.

    Tensors are detached copies on the CPU; one call holds a whole batch (twice that under
    classifier-free guidance). With `limit` the run stops after that many calls.

    Raises:
        ModelError: the pipeline has no single denoiser, or does not make images from text.
        UsageError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: {limit} is too few; record 1 call or more")
    _, denoiser = find_denoiser(pipe)
    recorder = _Recorder(limit)
    handle = denoiser.register_forward_hook(recorder, with_kwargs=True)
    batches = math.ceil(len(sampling.prompts) / sampling.batch)
    try:
        for _ in track(run_batches(pipe, sampling, output_type="latent"), "Recording", batches):
            recorder.step = -1
    except _EnoughError:
        pass
    finally:
        handle.remove()
    return tuple(recorder.calls)


@contextmanager
def recording(source: DiffusionPipeline | nn.Module) -> Iterator[list[Call]]:
    """Record the denoiser's calls while the caller runs the pipeline in whatever way it wants.

    For pipelines that need more than a prompt: control images, masks, class labels, video.

    >>> with recording(pipe) as calls:
    ...     pipe("an owl", image=edges)
    >>> quantize(pipe, calls=calls)

    Args:
        source: a pipeline with one denoiser, or the denoiser itself.

    Yields:
        A list that grows by a detached copy on the CPU with every call.

    Raises:
        ModelError: the pipeline has no single denoiser.
    """
    denoiser = source if isinstance(source, nn.Module) else find_denoiser(source)[1]
    recorder = _Recorder(None)
    handle = denoiser.register_forward_hook(recorder, with_kwargs=True)
    try:
        yield recorder.calls
    finally:
        handle.remove()


Example: TypeAlias = Call | tuple[tuple[Any, ...], Mapping[str, Any]]
"""A recorded call, or the arguments of one: (args, kwargs)."""


@torch.no_grad()
def completed_calls(denoiser: nn.Module, examples: Iterable[Example]) -> tuple[Call, ...]:
    """Calls with their outputs: those that lack one are run on the denoiser.

    Raises:
        UsageError: there is none, or one is neither a call nor a pair of arguments.
        ModelError: the denoiser returns no tensor.
    """
    calls = []
    for index, example in enumerate(examples):
        call = example if isinstance(example, Call) else _call_of(index, example)
        if call.output is None:
            here = call.to(next(denoiser.parameters()).device)
            call = replace(here, output=here.run(denoiser).detach().clone())
        calls.append(call)
    if not calls:
        raise UsageError("calls: none given; record one at least")
    return tuple(calls)


def _call_of(index: int, example: Any) -> Call:
    match example:
        case (tuple(args), Mapping() as kwargs):
            return Call(args, kwargs)
    raise UsageError(
        f"calls: number {index} is a {type(example).__name__}; give recorded calls, or pairs of "
        "a tuple of arguments and a dictionary of keyword arguments"
    )


def output_tensor(output: Any) -> Tensor:
    """The tensor in what a denoiser's `forward` returns: a tensor, a tuple or a model output."""
    first = output if isinstance(output, Tensor) else output[0]
    if not isinstance(first, Tensor):
        raise ModelError(
            f"the denoiser returns {type(first).__name__} where a tensor is expected; "
            "models that return lists are not supported"
        )
    return first


class _EnoughError(Exception):
    """Ends a pipeline run once the limit is reached; pipelines offer no other way out."""


@dataclass
class _Recorder:
    """A forward hook that copies each call to the CPU."""

    limit: int | None
    calls: list[Call] = field(default_factory=list)
    step: int = -1
    """Index of the current timestep in the current pipeline run; -1 before the first."""

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        timestep = _timestep(module, args, kwargs)
        if self.step < 0 or self.calls[-1].timestep != timestep:
            self.step += 1
        call = Call(args, kwargs, output_tensor(output), self.step, timestep)
        self.calls.append(call._mapped(lambda tensor: tensor.detach().to("cpu", copy=True)))
        if len(self.calls) == self.limit:
            raise _EnoughError


def _timestep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    value = next((value for name, value in arguments.items() if name in TIME_ARGUMENTS), math.nan)
    return float(value.flatten()[0]) if isinstance(value, Tensor) else float(value)


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in nested lists, tuples and dicts replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_map_tensors(item, function) for item in value)
    return value
