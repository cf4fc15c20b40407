"""Settings of a plan's calibration, with which the same values are found again."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt, StrictStr

from mezzotint.errors import UsageError

_HIGHEST = 2**31 - 1
"""The most steps, and images in a batch: more would fit no loop and no memory."""


@dataclass(frozen=True)
class Sampling:
    """Images to generate. Image i comes from `prompts[i]` and the noise of seed `seed + i`.

    `steps` and `guidance` of None mean the pipeline's own defaults. `batch` bounds memory and
    changes nothing else, but for floating-point rounding and averages over calls.
    """

    prompts: tuple[str, ...]
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    batch: int = 8

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UsageError("prompts: none given; at least one is needed")
        if not 0 <= self.seed < 2**63 - len(self.prompts):
            raise UsageError(f"seed: {self.seed} is out of range; use 0 or more")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"steps: {self.steps} is too few; use 1 or more")
        for name, count in (("steps", self.steps), ("batch", self.batch)):
            if count is not None and count > _HIGHEST:
                raise UsageError(f"{name}: {count} is too many; use {_HIGHEST} at most")
        if self.guidance is not None and not 0 <= self.guidance <= sys.float_info.max:
            raise UsageError(f"guidance: {self.guidance} is out of range; use 0 or more")
        if self.batch < 1:
            raise UsageError(f"batch: {self.batch} is too small; use 1 or more")

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"prompts": list(self.prompts)}


@dataclass(frozen=True)
class CallSelection:
    """The denoiser's calls to keep of a pipeline's run: some of them, spread over all of it.

    Attributes:
        calls: the most to keep, at timesteps spread evenly over the schedule.
        samples: the most to keep of each, spread over the prompts and the halves of guidance.
    """

    calls: int = 8
    samples: int = 8

    def __post_init__(self) -> None:
        for name, count in asdict(self).items():
            if not 1 <= count <= _HIGHEST:
                raise UsageError(f"{name}: is {count}; give 1 to {_HIGHEST}")

    def covering(self, steps: int) -> CallSelection:
        """The same, or with as many calls as there are steps: one at each at least."""
        return replace(self, calls=max(self.calls, steps))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationSettings:
    """The calls that static ranges and constant outputs were found in, and how.

    Attributes:
        sampling: prompts, seeds and steps of the pipeline's run; None where a plan does not say,
            or where the calls were recorded by its maker.
        calls: number of the denoiser's calls that were kept of it; None where a plan does not say.
        selection: the calls to keep of the run; None for all of them, whole.
        momentum: of the moving average that static ranges are; None for the lowest and highest
            value of all calls.

    Raises:
        UsageError: a number is out of its domain.
    """

    sampling: Sampling | None = None
    calls: int | None = None
    momentum: float | None = None
    selection: CallSelection | None = None

    def __post_init__(self) -> None:
        if self.calls is not None and self.calls < 1:
            raise UsageError(f"calls: is {self.calls}; expected 1 or more")
        check_momentum(self.momentum)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        sampling = None if self.sampling is None else self.sampling.to_dict()
        settings = {"momentum": self.momentum, "calls": self.calls, "sampling": sampling}
        if self.selection is None:
            return settings
        return settings | {"selection": self.selection.to_dict()}

    def __str__(self) -> str:
        return ", ".join(f"{name} {text}" for name, text in self._words().items())

    def _words(self) -> dict[str, str]:
        """Field → its value for people."""
        momentum = "none" if self.momentum is None else f"{self.momentum:g}"
        calls = "unknown" if self.calls is None else str(self.calls)
        if self.selection is not None:
            most = self.selection
            calls += f" (at most {most.calls} of {most.samples} samples)"
        if self.sampling is None:
            return {"momentum": momentum, "calls": calls, "sampling": "not stated"}
        prompts, numbers = self.sampling.prompts, asdict(self.sampling)
        del numbers["prompts"]
        shown = {"prompts": str(len(prompts))} | {
            name: "the pipeline's" if value is None else f"{value:g}"
            for name, value in numbers.items()
        }
        return {"momentum": momentum, "calls": calls, **shown}


def check_momentum(momentum: float | None) -> None:
    """Raise UsageError unless `momentum` is None, or from 0 to below 1."""
    if momentum is not None and not 0 <= momentum < 1:
        raise UsageError(f"momentum: is {momentum}; give 0 or more and below 1, or none")


class SamplingModel(BaseModel):
    """A sampling in JSON."""

    model_config = ConfigDict(extra="forbid")
    prompts: tuple[StrictStr, ...]
    seed: StrictInt = Sampling.seed
    steps: StrictInt | None = None
    guidance: StrictInt | StrictFloat | None = None
    batch: StrictInt = Sampling.batch


class SelectionModel(BaseModel):
    """A selection of calls in JSON."""

    model_config = ConfigDict(extra="forbid")
    calls: StrictInt
    samples: StrictInt


class CalibrationModel(BaseModel):
    """Calibration settings in JSON."""

    model_config = ConfigDict(extra="forbid")
    sampling: SamplingModel | None = None
    calls: StrictInt | None = None
    momentum: StrictInt | StrictFloat | None = None
    selection: SelectionModel | None = None

    def value(self) -> CalibrationSettings:
        """The settings.

        Raises:
            UsageError: a number is out of its domain.
        """
        sampling = None
        if self.sampling is not None:
            sampling = Sampling(**self.sampling.model_dump())
        selection = None
        if self.selection is not None:
            selection = CallSelection(**self.selection.model_dump())
        return CalibrationSettings(sampling, self.calls, self.momentum, selection)
