"""Settings of a plan's calibration, with which the same values are found again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictFloat, StrictInt

from mezzotint.errors import UsageError
from mezzotint.plan.sampling import HIGHEST, Sampling, SamplingModel


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
            if not 1 <= count <= HIGHEST:
                raise UsageError(f"{name}: is {count}; give 1 to {HIGHEST}")

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
        return {"momentum": momentum, "calls": calls, **self.sampling.words()}


def check_momentum(momentum: float | None) -> None:
    """Raise UsageError unless `momentum` is None, or from 0 to below 1."""
    if momentum is not None and not 0 <= momentum < 1:
        raise UsageError(f"momentum: is {momentum}; give 0 or more and below 1, or none")


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
        sampling = None if self.sampling is None else self.sampling.value()
        selection = None
        if self.selection is not None:
            selection = CallSelection(**self.selection.model_dump())
        return CalibrationSettings(sampling, self.calls, self.momentum, selection)
