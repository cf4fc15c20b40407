"""Hooks on a denoiser that copy its calls to the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from mezzotint._time_argument import TimeArgument
from mezzotint.models.call_arguments import call_arguments
from mezzotint.models.calls import Call, output_tensor
from mezzotint.models.joint import denoising_parts


@dataclass
class Recorder:
    """Hooks that copy calls to the CPU: what goes in before it is run, as it may be changed."""

    take: Callable[[Call], None]
    """Is given each call with its output."""
    wants: Callable[[int], bool] = lambda step: True
    """Tells of which steps calls are copied."""
    step: int = -1
    """Index of the current timestep in the current pipeline run; -1 before the first."""
    timestep: float = math.nan
    begun: Call | None = None
    """The call that is being run, without its output; None where it is not wanted."""

    @contextmanager
    def watching(self, denoiser: nn.Module) -> Iterator[None]:
        """Record the calls of a denoiser, or of all components of a joint module, for a while."""
        with ExitStack() as hooks:
            for name, part in denoising_parts(denoiser).items():
                begin = partial(self._begin, name)
                before = part.register_forward_pre_hook(begin, with_kwargs=True)
                hooks.callback(before.remove)
                after = part.register_forward_hook(self._finish, with_kwargs=True)
                hooks.callback(after.remove)
            yield

    def _begin(
        self,
        component: str | None,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        timestep = _timestep(module, args, kwargs)
        if self.step < 0 or timestep != self.timestep:
            self.step, self.timestep = self.step + 1, timestep
        self.begun = None
        if self.wants(self.step):
            call = call_arguments(component, module, args, kwargs)
            self.begun = _on_cpu(replace(call, step=self.step, timestep=timestep))

    def _finish(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if self.begun is not None:
            result = output_tensor(output).detach().to("cpu", copy=True)
            self.take(replace(self.begun, output=result))


def _on_cpu(call: Call) -> Call:
    return call.mapped(lambda tensor: tensor.detach().to("cpu", copy=True))


def _timestep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    argument = TimeArgument.of(module.forward)
    value = None if argument is None else argument.value(args, kwargs)
    if value is None:
        return math.nan
    return float(value.flatten()[0]) if isinstance(value, Tensor) else float(value)
