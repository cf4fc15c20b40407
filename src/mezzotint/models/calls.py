"""Calls of a denoiser: recorded from a pipeline, moved between devices, replayed."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.errors import ModelError, UsageError
from mezzotint.models.denoiser import TIME_ARGUMENTS, find_denoiser
from mezzotint.models.sampling import first_line, run_batches
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

    def copied(self) -> Call:
        """The same call with tensors of its own, detached."""
        return self._mapped(lambda tensor: tensor.detach().clone())

    def run(self, denoiser: nn.Module) -> Tensor:
        """The output tensor of `denoiser` on these arguments.

        It is given copies: models may change their inputs in place, and a call is run many times.
        """
        own = Call(self.args, self.kwargs).copied()
        return output_tensor(denoiser(*own.args, **own.kwargs))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> Call:
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
    batches = math.ceil(len(sampling.prompts) / sampling.batch)
    with recorder.watching(denoiser), suppress(_EnoughError):
        for _ in track(run_batches(pipe, sampling, output_type="latent"), "Recording", batches):
            recorder.step = -1
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
        UsageError: the source is neither.
    """
    if not isinstance(source, nn.Module | DiffusionPipeline):
        raise UsageError(f"source: is a {type(source).__name__}; give a pipeline or its denoiser")
    denoiser = source if isinstance(source, nn.Module) else find_denoiser(source)[1]
    recorder = _Recorder(None)
    with recorder.watching(denoiser):
        yield recorder.calls


Example: TypeAlias = Call | tuple[tuple[Any, ...], Mapping[str, Any]]
"""A recorded call, or the arguments of one: (args, kwargs)."""


@torch.no_grad()
def completed_calls(denoiser: nn.Module, examples: Iterable[Example]) -> tuple[Call, ...]:
    """Calls with their outputs: those that lack one are run on the denoiser.

    Raises:
        UsageError: there is none, or one is neither a call nor a pair of arguments, or gives
            arguments on which the denoiser fails.
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

    Raises:
        ModelError: there is none, or it holds integers.
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
    if not isinstance(first, Tensor):
        raise ModelError(
            f"the denoiser returns {type(first).__name__} where a tensor is expected; "
            "models that return lists are not supported"
        )
    if not first.is_floating_point():
        raise ModelError(
            f"the denoiser returns a tensor of {first.dtype} where a floating one is expected; "
            "quantize what computes it, without the rounding after it"
        )
    return first


class _EnoughError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline run once the limit is reached; pipelines offer no other way out."""


@dataclass
class _Recorder:
    """Hooks that copy each call to the CPU: what goes in before it is run, as it may be changed."""

    limit: int | None
    calls: list[Call] = field(default_factory=list)
    step: int = -1
    """Index of the current timestep in the current pipeline run; -1 before the first."""
    begun: Call | None = None
    """The call that is being run, without its output."""

    @contextmanager
    def watching(self, denoiser: nn.Module) -> Iterator[None]:
        """Record the calls of a denoiser for a while."""
        with ExitStack() as hooks:
            before = denoiser.register_forward_pre_hook(self._begin, with_kwargs=True)
            hooks.callback(before.remove)
            after = denoiser.register_forward_hook(self._finish, with_kwargs=True)
            hooks.callback(after.remove)
            yield

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.begun = replace(_on_cpu(Call(args, kwargs)), timestep=_timestep(module, args, kwargs))

    def _finish(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        assert self.begun is not None  # what begins a call stands before what finishes it
        call = self.begun
        if self.step < 0 or self.calls[-1].timestep != call.timestep:
            self.step += 1
        result = output_tensor(output).detach().to("cpu", copy=True)
        self.calls.append(replace(call, output=result, step=self.step))
        if len(self.calls) == self.limit:
            raise _EnoughError


def _on_cpu(call: Call) -> Call:
    return call._mapped(lambda tensor: tensor.detach().to("cpu", copy=True))


def _timestep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    arguments = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    value = next((value for name, value in arguments.items() if name in TIME_ARGUMENTS), math.nan)
    return float(value.flatten()[0]) if isinstance(value, Tensor) else float(value)


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in nested lists, tuples and dicts replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, function) for item in value)
    return value
