"""Text embeddings among a denoiser's arguments, made anew by a pipeline's text encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint._words import listed
from mezzotint.errors import ProbeError, UsageError
from mezzotint.models.calls import Call
from mezzotint.models.first_step import Shapes, first_step, shapes_of
from mezzotint.models.nested_rows import Place, Rows, close, differ, rows_in, with_rows
from mezzotint.plan import Sampling

TEXT = "text"
"""Keyword of the rows of text that a call of a joint module is of."""

_OTHERS = ("zebra crossing", "quiet harbour")
"""Prompts that tell which arguments depend on the text."""


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
        self._paths: tuple[Place, ...] = ()
        self._shapes: dict[str, Shapes] = {}
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
        self._shapes = shapes_of(calls)
        images = {_key(each): each for each in replace(sampling, batch=1).batches()}
        self._images |= {key: each for key, each in images.items() if key not in self._images}
        first = next(iter(images.values()))
        others = [replace(first, prompts=(prompt,)) for prompt in _OTHERS]
        with torch.no_grad():
            tables = {key: self._rows_of(components, each) for key, each in images.items()}
            pair = [self._rows_of(components, each) for each in others]
        self._paths = tuple(path for path in pair[0] if differ(*(rows.get(path) for rows in pair)))
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
            found = with_rows(found, path, rows)
        return found

    def _rows_of(self, components: Mapping[str, nn.Module], image: Sampling) -> dict[Place, Rows]:
        """Place → rows of what the first step's calls are given there, one after another."""
        taken = first_step(self._pipe, components, image, self._shapes)
        found: dict[Place, list[Rows]] = {}
        for call in taken:
            for path, rows in rows_in(call.kwargs):
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

    def _with_text(self, call: Call, tables: Mapping[str, Mapping[Place, Rows]]) -> Call:
        assert call.output is not None  # recorded
        given = dict(rows_in(call.kwargs))
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
        self, row: Mapping[Place, Tensor], tables: Mapping[str, Mapping[Place, Rows]]
    ) -> tuple[int, int] | None:
        images = list(self._images)
        for key, table in tables.items():
            for index in range(min(len(table[path]) for path in self._paths)):
                if all(close(row[path], table[path][index]) for path in self._paths):
                    return images.index(key), index
        return None


def _key(image: Sampling) -> str:
    """Equal for images of the same text, whatever their noise."""
    return json.dumps(replace(image, seed=0).to_dict())
