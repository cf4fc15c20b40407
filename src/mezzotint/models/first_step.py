"""The first step of a pipeline's run: what its denoisers are given, without computing them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.models.call_arguments import COMPONENT, TIMESTEP, call_arguments
from mezzotint.models.calls import Call
from mezzotint.models.denoiser import find_denoisers
from mezzotint.models.nested_rows import rows_in
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.sampling import run_batches
from mezzotint.plan import Sampling

Shapes: TypeAlias = tuple[torch.Size, torch.Size]
"""Shapes of the sample that a denoiser is given, and of what it returns."""


def shapes_of(calls: Sequence[Call]) -> dict[str, Shapes]:
    """Component → shapes of the sample that it is given, and of what it returns."""
    return {
        call.kwargs[COMPONENT]: (_sample(call).shape, call.output.shape)
        for call in reversed(calls)
        if call.output is not None
    }


def first_step(
    pipe: DiffusionPipeline,
    components: Mapping[str, nn.Module],
    image: Sampling,
    shapes: Mapping[str, Shapes],
) -> tuple[Call, ...]:
    """The calls of the first step, with their arguments as keywords; gradients lead through them.

    Args:
        pipe: runs up to its second step.
        components: by name, that stand in the place of its own.
        image: to draw.
        shapes: of each denoiser, as `shapes_of` gives them.
    """
    taken: list[Call] = []
    copied = _followed(pipe)
    for name, component in components.items():
        vars(copied)[name] = component
    for name, denoiser in find_denoisers(pipe).items():
        stood_for = components.get(name, denoiser)
        vars(copied)[name] = _Capturing(name, stood_for, shapes.get(name), taken)
    # The pipeline has said what it has to say when it was recorded.
    with quiet_libraries(warnings=False), suppress(_SeenError):
        for _ in run_batches(copied, image, output_type="latent"):
            pass
    return tuple(taken)


class _Capturing:
    """Stands for a denoiser in a pipeline that runs up to its second step; looks like it."""

    def __init__(
        self, name: str, denoiser: nn.Module, shapes: Shapes | None, taken: list[Call]
    ) -> None:
        self._name = name
        self._shapes = shapes
        self._denoiser = denoiser
        self._taken = taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = call_arguments(self._name, self._denoiser, args, kwargs)
        first = self._taken[0].kwargs if self._taken else call.kwargs
        if not _same_time(first.get(TIMESTEP), call.kwargs.get(TIMESTEP)):
            raise _SeenError
        self._taken.append(call)
        return _Output((self._output(call),))

    def _output(self, call: Call) -> Tensor:
        """Zeros of the shape of a prediction, which nothing depends on before the second step."""
        sample = _sample(call)
        if self._shapes is None:  # a denoiser that recorded runs never call
            return torch.zeros_like(sample)
        given, returned = self._shapes
        return sample.new_zeros(len(sample) * returned[0] // given[0], *returned[1:])


def _sample(call: Call) -> Tensor:
    """The noisy sample, which all denoisers take first."""
    return torch.stack(next(rows for path, rows in rows_in(call.kwargs) if path != (TIMESTEP,)))


class _Output(tuple[Tensor]):
    """A denoiser's output: a tuple, and what has the prediction as an attribute."""

    @property
    def sample(self) -> Tensor:
        """The prediction."""
        return self[0]


class _SeenError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline's run at its second step."""


def _followed(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """A copy of the pipeline whose call lets gradients through, with a scheduler of its own."""
    kind = type(pipe)
    copied = copy.copy(pipe)
    copied.__class__ = type(kind.__name__, (kind,), {"__call__": inspect.unwrap(kind.__call__)})
    vars(copied)["scheduler"] = copy.deepcopy(pipe.scheduler)
    return copied


def _same_time(left: Any, right: Any) -> bool:
    first, second = (
        float(value.flatten()[0]) if isinstance(value, Tensor) else value for value in (left, right)
    )
    return bool(first == second)
