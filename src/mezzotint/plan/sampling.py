"""Images to generate: prompts, seeds, steps, and whatever else a pipeline's call takes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, StrictFloat, StrictInt, StrictStr

from mezzotint.errors import UsageError
from mezzotint.plan.call_kwargs import CallKwargs

HIGHEST = 2**31 - 1
"""The most steps, and images in a batch: more would fit no loop and no memory."""

_NO_KWARGS = CallKwargs({})


@dataclass(frozen=True, init=False)
class Sampling:
    """Images to generate. Image i comes from `prompts[i]` and the noise of seed `seed + i`.

    `steps` and `guidance` of None mean the pipeline's own defaults. `batch` bounds memory and
    changes nothing else, but for floating-point rounding and averages over calls. For videos, read
    video for image.

    Attributes:
        prompts: one for each image; none for a pipeline that takes none.
        count: number of images where there are no prompts; None where there are.
        call_kwargs: further arguments of the pipeline's call, see `CallKwargs`.
    """

    prompts: tuple[str, ...]
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    batch: int = 8
    count: int | None = None
    call_kwargs: CallKwargs = _NO_KWARGS

    def __init__(
        self,
        prompts: str | Iterable[str] = (),
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch: int = 8,
        count: int | None = None,
        call_kwargs: Mapping[str, Any] = _NO_KWARGS,
    ) -> None:
        """Check and keep what is asked for.

        Args:
            prompts: one or several.
            seed: of the first image.
            steps: of denoising.
            guidance: scale of classifier-free guidance.
            batch: the most images at once.
            count: number of images, for a pipeline that takes no prompts.
            call_kwargs: whatever else the pipeline's call takes, such as `negative_prompt`,
                `image`, `mask_image`, `class_labels`, `num_frames` or `strength`: one value for all
                images, or a list with one for each.

        Raises:
            UsageError: there is neither prompt nor count, or a number is none or out of its
                domain, or an argument of the call is none of those that can be given here.
        """
        texts = _prompts(prompts)
        images = _images(texts, None if count is None else _whole("count", count))
        # The fields alone tell what is asked for, whichever way it was given.
        for name, value in {
            "prompts": texts,
            "seed": _whole("seed", seed),
            "steps": None if steps is None else _whole("steps", steps),
            "guidance": None if guidance is None else _real("guidance", guidance),
            "batch": _whole("batch", batch),
            "count": None if texts else images,
        }.items():
            object.__setattr__(self, name, value)
        self._check_numbers()
        object.__setattr__(self, "call_kwargs", CallKwargs.of(call_kwargs, images))

    def __len__(self) -> int:
        return len(self.prompts) or self.count or 0

    def _check_numbers(self) -> None:
        highest = 2**63 - 1 - len(self)
        if not 0 <= self.seed <= highest:
            raise UsageError(f"seed: {self.seed} is out of range; use 0 to {highest}")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps: {self.steps} is too few; use 1 or more")
        for name, number in (("steps", self.steps), ("batch", self.batch)):
            if number is not None and number > HIGHEST:
                raise UsageError(f"{name}: {number} is too many; use {HIGHEST} at most")
        if self.guidance is not None and not 0 <= self.guidance <= sys.float_info.max:
            raise UsageError(f"guidance: {self.guidance} is out of range; use 0 or more")
        if self.batch < 1:
            raise UsageError(f"batch: {self.batch} is too small; use 1 or more")

    def picked(self, places: Sequence[int], seed: int) -> Sampling:
        """Some of the images, in that order, with other noise; one may be taken repeatedly.

        Args:
            places: indices of the images.
            seed: of the first of them.
        """
        return replace(
            self,
            prompts=tuple(self.prompts[place] for place in places) if self.prompts else (),
            count=None if self.prompts else len(places),
            seed=seed,
            call_kwargs=self.call_kwargs.picked(places),
        )

    def part(self, start: int, stop: int) -> Sampling:
        """The images from `start` to below `stop`, as many as there are, with their own noise."""
        places = range(start, min(stop, len(self)))
        return self.picked(places, self.seed + start)

    def repeated(self, images: int) -> Sampling:
        """So many images: the first of these, or all of them again and again with further noise."""
        return self.picked([place % len(self) for place in range(images)], self.seed)

    def batches(self) -> Iterator[Sampling]:
        """The same, in parts of `batch` images."""
        for start in range(0, len(self), self.batch):
            yield self.part(start, start + self.batch)

    def with_kwargs(self, call_kwargs: Mapping[str, Any]) -> Sampling:
        """The same images with further arguments of the call, in the place of equally named ones.

        Raises:
            UsageError: as of the constructor.
        """
        given = CallKwargs.of(call_kwargs, len(self))
        return replace(self, call_kwargs=self.call_kwargs.updated(given))

    def to_dict(self) -> dict[str, Any]:
        """JSON values; pictures and tensors among the call's arguments by their digests."""
        found: dict[str, Any] = {
            "prompts": list(self.prompts),
            "seed": self.seed,
            "steps": self.steps,
            "guidance": self.guidance,
            "batch": self.batch,
        }
        # Left out where they say nothing, so that older files still compare equal.
        if self.count is not None:
            found["count"] = self.count
        if self.call_kwargs:
            found["call_kwargs"] = self.call_kwargs.to_dict()
        return found

    def words(self) -> dict[str, str]:
        """Field → its value for people."""
        numbers = {"seed": self.seed, "steps": self.steps, "guidance": self.guidance}
        found = {"prompts": str(len(self.prompts))} if self.prompts else {"images": str(len(self))}
        for name, value in {**numbers, "batch": self.batch}.items():
            found[name] = "the pipeline's" if value is None else f"{value:g}"
        if self.call_kwargs:
            found["call_kwargs"] = " ".join(self.call_kwargs)
        return found


def _prompts(prompts: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(prompts, str):
        return (prompts,)
    if not isinstance(prompts, Iterable):
        raise UsageError(
            f"prompts: is a {type(prompts).__name__}; give one prompt, or a list of them"
        )
    found = tuple(prompts)
    for index, prompt in enumerate(found):
        if not isinstance(prompt, str):
            raise UsageError(f"prompts: number {index} is a {type(prompt).__name__}; give strings")
    return found


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name}: {value!r} is a {type(value).__name__}; give a whole number")
    return int(value)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UsageError(f"{name}: {value!r} is a {type(value).__name__}; give a number")
    return int(value) if isinstance(value, Integral) else float(value)


def _images(prompts: tuple[str, ...], count: int | None) -> int:
    """The number of images.

    Raises:
        UsageError: there is none, or prompts and count say different things.
    """
    if count is not None and not 1 <= count <= HIGHEST:
        raise UsageError(f"count: {count} is out of range; use 1 to {HIGHEST}")
    if not prompts and count is None:
        raise UsageError(
            "prompts: none given; at least one is needed, or a count for a pipeline that takes none"
        )
    if prompts and count not in (None, len(prompts)):
        raise UsageError(f"count: is {count} for {len(prompts)} prompts; leave it out")
    return len(prompts) or count or 0


class SamplingModel(BaseModel):
    """A sampling in JSON."""

    model_config = ConfigDict(extra="forbid")
    prompts: tuple[StrictStr, ...]
    seed: StrictInt = Sampling.seed
    steps: StrictInt | None = None
    guidance: StrictInt | StrictFloat | None = None
    batch: StrictInt = Sampling.batch
    count: StrictInt | None = None
    call_kwargs: dict[str, JsonValue] = {}

    def value(self) -> Sampling:
        """The sampling.

        Raises:
            UsageError: a number is out of its domain, or an argument is damaged.
        """
        numbers = self.model_dump(exclude={"call_kwargs"})
        plain = Sampling(**numbers)
        return replace(plain, call_kwargs=CallKwargs.from_dict(self.call_kwargs, len(plain)))
