"""Text embeddings among a denoiser's arguments, made anew by a pipeline's text encoders."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint._words import listed
from mezzotint.errors import ProbeError, UsageError
from mezzotint.models.call_arguments import COMPONENT, TIMESTEP, call_arguments
from mezzotint.models.calls import Call
from mezzotint.models.denoiser import find_denoisers
from mezzotint.models.quiet import quiet_libraries
from mezzotint.models.rows import POSITION_ARGUMENTS
from mezzotint.models.sampling import run_batches
from mezzotint.plan import Sampling

TEXT = "text"
"""Keyword of the rows of text that a call of a joint module is of."""

_OTHERS = ("zebra crossing", "quiet harbour")
"""Prompts that tell which arguments depend on the text."""

_ROUNDING = 1e-3
"""Greatest relative difference of an embedding that was made in a batch of another size."""

_Shapes = tuple[torch.Size, torch.Size]

Path = tuple[Any, ...]
"""Place of a tensor, or of a list with one for each sample, among nested keyword arguments."""

Rows = list[Tensor]
"""Tensors of all samples at one place, one for each."""


class TextInputs:
    """Text embeddings of a pipeline's encoders, put into the calls of its denoisers.

    The pipeline's own code runs from the prompt to the first step, whatever it does there:
    tokenizing, choosing hidden states, joining the outputs of several encoders. All arguments that
    differ between prompts are then taken from there. Gradients go the same way back.

    Text is told by two numbers: index of an image, of those that have other texts, and row among
    those of all calls that the first step makes of it (the halves of guidance).

    Args:
        pipe: the floating pipeline.
        encoders: names of its text encoders that are looked at, for errors.
    """

    def __init__(self, pipe: DiffusionPipeline, encoders: Sequence[str]) -> None:
        self._pipe = pipe
        self._encoders = listed(list(encoders))
        self._images: dict[str, Sampling] = {}
        self._paths: tuple[Path, ...] = ()
        self._shapes: dict[str, _Shapes] = {}
        self._differentiable = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same: copies of a joint module differ in their components, which each call is given.

        A copy of the pipeline would hold all its weights once more.
        """
        return self

    def told(
        self, components: Mapping[str, nn.Module], calls: Sequence[Call], sampling: Sampling
    ) -> tuple[Call, ...]:
        """The recorded calls, each with the text that its rows are of.

        Which rows are of which text is seen by their values.

        Args:
            components: the floating ones, by name.
            calls: of the pipeline's denoisers, recorded on these prompts.
            sampling: prompts, steps and guidance.

        Raises:
            UsageError: nothing that the denoisers are given depends on the prompt, or some of it
                is not of the first step's text: no row of it is found in the calls.
        """
        if not sampling.prompts:
            raise UsageError(f"components: {self._encoders}: there are no prompts; leave them out")
        self._shapes = _shapes(calls)
        images = {_key(each): each for each in replace(sampling, batch=1).batches()}
        self._images |= {key: each for key, each in images.items() if key not in self._images}
        first = next(iter(images.values()))
        others = [replace(first, prompts=(prompt,)) for prompt in _OTHERS]
        with torch.no_grad():
            tables = {key: self._rows_of(components, each) for key, each in images.items()}
            pair = [self._rows_of(components, each) for each in others]
        self._paths = tuple(path for path in pair[0] if _differ(*(rows.get(path) for rows in pair)))
        if not self._paths:
            raise UsageError(
                f"components: {self._encoders}: nothing that the denoiser is given depends on the "
                "prompt; leave them out"
            )
        self._differentiable = self._passes_gradients(components, first)
        return tuple(self._with_text(call, tables) for call in calls)

    def applied(
        self, components: Mapping[str, nn.Module], text: Tensor, kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keyword arguments of a denoiser with its text encoded by these components.

        Args:
            components: floating or not, by name.
            text: int64 [rows, 2].
            kwargs: as they were recorded.

        Raises:
            ProbeError: a gradient is wanted, and the pipeline's code lets none through.
        """
        if torch.is_grad_enabled() and not self._differentiable:
            raise ProbeError(
                f"{type(self._pipe).__name__} lets no gradient through to {self._encoders}; measure"
                " the layers one by one instead"
            )
        images = list(self._images.values())
        wanted: list[tuple[int, int]] = text.tolist()
        tables = {
            image: self._rows_of(components, images[image])
            for image in dict.fromkeys(image for image, _ in wanted)
        }
        found = dict(kwargs)
        for path in self._paths:
            rows = [tables[image][path][row] for image, row in wanted]
            found = _replaced(found, path, rows)
        return found

    def _rows_of(self, components: Mapping[str, nn.Module], image: Sampling) -> dict[Path, Rows]:
        """Place → rows of what the first step's calls are given there, one after another."""
        taken: list[Call] = []
        pipe = _followed(self._pipe)
        for name, component in components.items():
            vars(pipe)[name] = component
        for name, denoiser in find_denoisers(self._pipe).items():
            shapes = self._shapes.get(name)
            vars(pipe)[name] = _Capturing(name, components.get(name, denoiser), shapes, taken)
        # The pipeline has said what it has to say when it was recorded.
        with quiet_libraries(warnings=False), suppress(_SeenError):
            for _ in run_batches(pipe, image, output_type="latent"):
                pass
        found: dict[Path, list[Rows]] = {}
        for call in taken:
            for path, rows in _rows(call.kwargs):
                found.setdefault(path, []).append(rows)
        # Others are of some of the calls alone.
        return {
            path: [row for rows in each for row in rows]
            for path, each in found.items()
            if len(each) == len(taken)
        }

    def _passes_gradients(self, components: Mapping[str, nn.Module], image: Sampling) -> bool:
        weights = [
            weight
            for component in components.values()
            for weight in component.parameters()
            if weight.is_floating_point() and not weight.requires_grad
        ]
        try:
            for weight in weights:
                weight.requires_grad_(True)
            with torch.inference_mode(False), torch.enable_grad():
                rows = self._rows_of(components, image)
                return any(row.requires_grad for path in self._paths for row in rows[path])
        finally:
            for weight in weights:
                weight.requires_grad_(False)

    def _with_text(self, call: Call, tables: Mapping[str, Mapping[Path, Rows]]) -> Call:
        assert call.output is not None  # recorded
        given = dict(_rows(call.kwargs))
        text = [
            self._text_of({path: given[path][row] for path in self._paths}, tables)
            if all(path in given and len(given[path]) == len(call.output) for path in self._paths)
            else None
            for row in range(len(call.output))
        ]
        if None in text:
            raise UsageError(
                f"components: {self._encoders}: what the denoiser is given at step {call.step} is "
                "not the text as it is at the first step; leave them out"
            )
        return replace(call, kwargs={**call.kwargs, TEXT: torch.tensor(text)})

    def _text_of(
        self, row: Mapping[Path, Tensor], tables: Mapping[str, Mapping[Path, Rows]]
    ) -> tuple[int, int] | None:
        images = list(self._images)
        for key, table in tables.items():
            for index in range(min(len(table[path]) for path in self._paths)):
                if all(_close(row[path], table[path][index]) for path in self._paths):
                    return images.index(key), index
        return None


def _key(image: Sampling) -> str:
    """Equal for images of the same text, whatever their noise."""
    return json.dumps(replace(image, seed=0).to_dict())


class _Capturing:
    """Stands for a denoiser in a pipeline that runs up to its second step; looks like it."""

    def __init__(
        self, name: str, denoiser: nn.Module, shapes: _Shapes | None, taken: list[Call]
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


def _shapes(calls: Sequence[Call]) -> dict[str, _Shapes]:
    """Component → shapes of the sample that it is given, and of what it returns."""
    return {
        call.kwargs[COMPONENT]: (_sample(call).shape, call.output.shape)
        for call in reversed(calls)
        if call.output is not None
    }


def _sample(call: Call) -> Tensor:
    """The noisy sample, which all denoisers take first."""
    return torch.stack(next(rows for path, rows in _rows(call.kwargs) if path != (TIMESTEP,)))


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


def _rows(value: Any, path: Path = ()) -> Iterator[tuple[Path, Rows]]:
    """Rows of all tensors, and lists of tensors, in nested values but shared positions."""
    if isinstance(value, Tensor):
        if value.ndim >= 1:
            yield path, list(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if path or key not in POSITION_ARGUMENTS:
                yield from _rows(item, (*path, key))
    elif isinstance(value, list | tuple):
        if value and all(isinstance(item, Tensor) for item in value):
            yield path, list(value)
            return
        for index, item in enumerate(value):
            yield from _rows(item, (*path, index))


def _replaced(value: Any, path: Path, rows: Rows) -> Any:
    """Nested values with other rows at a place, in its dtype."""
    if not path:
        if isinstance(value, Tensor):
            return torch.stack(rows).to(value.dtype)
        return type(value)(row.to(old.dtype) for row, old in zip(rows, value, strict=True))
    key, *rest = path
    if isinstance(value, Mapping):
        return {**value, key: _replaced(value[key], tuple(rest), rows)}
    items = list(value)
    items[key] = _replaced(items[key], tuple(rest), rows)
    return type(value)(items)


def _differ(left: Rows | None, right: Rows | None) -> bool:
    """True for embeddings that are not the same; other arguments hold no floating numbers."""
    if not left or not right or not left[0].is_floating_point():
        return False
    return len(left) != len(right) or not all(map(_close, left, right))


def _close(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    first, second = left.double(), right.to(left.device).double()
    return bool((first - second).norm() <= _ROUNDING * second.norm())
