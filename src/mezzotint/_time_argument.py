"""The timestep among the arguments of a denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TIME_ARGUMENTS = frozenset({"timestep", "timesteps", "t", "timestep_ratio"})
"""Names of the timestep among the arguments of diffusers' denoisers."""


@dataclass(frozen=True)
class TimeArgument:
    """Place of the timestep in a call.

    Attributes:
        name: by which it is given as a keyword.
        position: among positional arguments, from 0.
    """

    name: str
    position: int

    @classmethod
    def of(cls, forward: Callable[..., Any]) -> TimeArgument | None:
        """The first timestep among the parameters of a bound method; None where it has none."""
        for position, name in enumerate(inspect.signature(forward).parameters):
            if name in TIME_ARGUMENTS:
                return cls(name, position)
        return None

    def value(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The timestep that a call gives; None where it gives none."""
        if self.name in kwargs:
            return kwargs[self.name]
        return args[self.position] if self.position < len(args) else None
