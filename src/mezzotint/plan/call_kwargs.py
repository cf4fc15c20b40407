"""Arguments that a pipeline's call takes beside prompts: one for all images, or one for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.plan.call_values import Absent, checked_value, value_from_json, value_to_json

_SHARED = "$shared"
"""In JSON: a list that is one value for all images, whatever their number."""

SET_BY_SAMPLING = {
    "prompt": "give Sampling(prompts=...)",
    "generator": "give Sampling(seed=...), or --seed",
    "batch_size": "give Sampling(count=...) for the number of images",
    "num_images_per_prompt": "repeat the prompt, each with a seed of its own",
    "num_videos_per_prompt": "repeat the prompt, each with a seed of its own",
    "output_type": "leave it out, pixels are always arrays",
    "return_dict": "leave it out",
}
"""Arguments of a pipeline's call that nothing but `Sampling` sets, and what to do instead."""

_OWN = SET_BY_SAMPLING | {
    "prompts": "give Sampling(prompts=...)",
    "num_inference_steps": "give Sampling(steps=...), or --steps",
    "steps": "give Sampling(steps=...), or --steps",
    "guidance_scale": "give Sampling(guidance=...), or --guidance",
    "guidance": "give Sampling(guidance=...), or --guidance",
    "seed": "give Sampling(seed=...), or --seed",
    "batch": "give Sampling(batch=...)",
    "count": "give Sampling(count=...) for the number of images",
}
"""Those, and what `Sampling` has a field for, by its name or the pipeline's."""

_SEQUENCES = frozenset({"timesteps", "sigmas"})
"""Arguments whose lists are never one value for each image."""

_ROWS = ("embeds", "embeds_mask", "attention_mask", "latents")
"""Ends of the names of arguments whose tensors always have a row for each image."""


class CallKwargs(Mapping[str, Any]):
    """Further arguments of a pipeline's call, checked, hashable, and comparable by content.

    A list of as many values as there are images has one for each, and so has a tensor or array of
    as many rows: one of four dimensions or more, or an embedding. Anything else is one value for
    all images; so are tuples, and lists of `timesteps` and `sigmas`.

    Attributes:
        each: names of the arguments that have a value for each image.
    """

    def __init__(self, values: Mapping[str, Any], each: frozenset[str] = frozenset()) -> None:
        """Take values that were checked; `CallKwargs.of` checks them."""
        self._values = dict(values)
        self.each = each

    @classmethod
    def of(cls, values: Mapping[str, Any], images: int) -> CallKwargs:
        """Check the arguments of so many images.

        Args:
            values: name → value: None, numbers, strings, pictures of PIL, tensors, arrays, and
                lists, tuples and dictionaries of those; or arguments that were checked before.
            images: their number.

        Raises:
            UsageError: an argument is one that `Sampling` itself sets, has a value of another
                type, or was made for another number of images.
        """
        if isinstance(values, CallKwargs):
            for name in values.each:
                if len(values[name]) != images:
                    raise UsageError(
                        f"call_kwargs: {name} has {len(values[name])} values for {images} images; "
                        "give one for each"
                    )
            return values
        if not isinstance(values, Mapping):
            raise UsageError(
                f"call_kwargs: is a {type(values).__name__}; give a dictionary, such as "
                '{"negative_prompt": "blurred"}'
            )
        for name in values:
            if not isinstance(name, str):
                raise UsageError(f"call_kwargs: {name!r} is no name; give the names of arguments")
            if name in _OWN:
                raise UsageError(f"call_kwargs: {name} is set by Sampling itself: {_OWN[name]}")
        taken = {name: checked_value(name, value) for name, value in values.items()}
        each = {name for name, value in taken.items() if _of_each(name, value, images)}
        return cls(taken, frozenset(each))

    @override
    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    @override
    def __len__(self) -> int:
        return len(self._values)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallKwargs) and self._text == other._text

    @override
    def __hash__(self) -> int:
        return hash(self._text)

    @override
    def __repr__(self) -> str:
        return f"CallKwargs({self._text})"

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of arguments of which only digests are known: they come from a plan's JSON."""
        return tuple(name for name, value in self.items() if _holds_absent(value))

    def picked(self, places: Sequence[int]) -> CallKwargs:
        """The arguments of some of the images, in that order; images may be taken repeatedly."""
        if not self.each:
            return self
        values = {
            name: _rows(value, places) if name in self.each else value
            for name, value in self.items()
        }
        return CallKwargs(values, self.each)

    def updated(self, others: CallKwargs) -> CallKwargs:
        """These, with others in the place of equally named ones; both for the same images."""
        kept = self.each - others.keys()
        return CallKwargs({**self, **others}, kept | others.each)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: pictures, tensors and arrays by their shapes and SHA-256 digests."""
        found: dict[str, Any] = json.loads(self._text)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], images: int) -> CallKwargs:
        """The arguments that `to_dict` described; of pictures and tensors, their digests.

        Raises:
            UsageError: as `of`, or a value describes nothing.
        """
        taken: dict[str, Any] = {}
        shared = set()
        for name, value in values.items():
            if isinstance(value, Mapping) and set(value) == {_SHARED}:
                shared.add(name)
                value = value[_SHARED]  # noqa: PLW2901  (the list itself)
            taken[name] = value_from_json(name, value)
        found = cls.of(taken, images)
        return cls(found._values, found.each - shared)

    @cached_property
    def _text(self) -> str:
        values = {}
        for name, value in self.items():
            described = value_to_json(value)
            if name not in self.each and isinstance(described, list):
                described = {_SHARED: described}
            values[name] = described
        return json.dumps(values, sort_keys=True)


def _of_each(name: str, value: Any, images: int) -> bool:
    """True for a value that has one part for each image."""
    if name in _SEQUENCES:
        return False
    if isinstance(value, list):
        return len(value) == images
    if isinstance(value, Tensor | np.ndarray):
        rows = value.ndim >= 4 or (value.ndim >= 2 and name.endswith(_ROWS))
        return rows and len(value) == images
    return False


def _rows(value: Any, places: Sequence[int]) -> Any:
    if isinstance(value, list):
        return [value[place] for place in places]
    return value[list(places)]


def _holds_absent(value: Any) -> bool:
    match value:
        case Absent():
            return True
        case list() | tuple():
            return any(map(_holds_absent, value))
        case dict():
            return any(map(_holds_absent, value.values()))
    return False
