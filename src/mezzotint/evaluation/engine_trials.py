"""Denoisers under several engines, ready to be timed on the same calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._words import listed
from mezzotint.engines import attach_engine, engines
from mezzotint.errors import ModelError, UsageError, first_line
from mezzotint.models import (
    Call,
    Pipeline,
    component_of,
    denoising_module,
    find_denoisers,
)
from mezzotint.runtime import packed_layers


@dataclass(frozen=True)
class Trials:
    """Engines that have computed the calls of a pipeline's packed denoisers.

    Attributes:
        pipes: engine → the pipeline under it.
        runs: engine → a function that computes the calls once.
        left_out: engine → why it did not compute them.
    """

    pipes: dict[str, Pipeline] = field(default_factory=dict)
    runs: dict[str, Callable[[], object]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def engine_trials(pipe: DiffusionPipeline, names: Sequence[str], calls: Sequence[Call]) -> Trials:
    """Run the calls once under each engine: some compile, and fail, only then.

    Args:
        pipe: with packed denoisers; those that are floating keep their engine.
        names: of engines.
        calls: of the packed denoisers.

    Raises:
        ModelError: none of them computes the calls.
    """
    found, packed = Trials(), packed_denoisers(pipe)
    for name in names:
        try:
            served = attach_engine(pipe, name, packed)
            run = partial(run_calls, denoising_module(served), calls)
            run()
        except Exception as cause:  # an engine's own code may raise anything
            found.left_out[name] = first_line(cause)
        else:
            found.pipes[name], found.runs[name] = served, run
    if not found.runs:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        raise ModelError(f"no engine computes a call of the packed denoiser ({reasons})")
    return found


def engine_refusals(pipe: DiffusionPipeline) -> dict[str, str | None]:
    """Engine → why it refuses a pipeline's packed denoisers, as far as it can tell; in order.

    None for those that do not. Of a pipeline without packed denoisers all of them are asked about.

    Raises:
        ModelError: the pipeline has no denoiser.
    """
    denoising_module(pipe)  # says so
    found = find_denoisers(pipe)
    parts = [part for part in found.values() if packed_layers(part)] or list(found.values())
    return {
        each.name: next((why for part in parts if (why := each.refuse(part)) is not None), None)
        for each in engines()
    }


def able_engines(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the engines that can compute a pipeline's denoisers here, as far as they can tell.

    Raises:
        ModelError: the pipeline has none.
    """
    return tuple(name for name, why in engine_refusals(pipe).items() if why is None)


def packed_denoisers(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the denoisers that have packed layers.

    Raises:
        UsageError: there is none.
    """
    found = tuple(name for name, part in find_denoisers(pipe).items() if packed_layers(part))
    if not found:
        raise UsageError(
            "pipe: no denoiser of it is packed, so that its calls take as long as the original's"
        )
    return found


def calls_of(names: Sequence[str], calls: Sequence[Call]) -> list[Call]:
    """Those calls that are of the named denoisers, or of the only one.

    Raises:
        ModelError: there is none.
    """
    found = [call for call in calls if component_of(call) in (None, *names)]
    if not found:
        raise ModelError(
            f"the pipeline does not call {listed(names)}; give a sampling of more steps"
        )
    return found


@torch.no_grad()
def run_calls(denoiser: nn.Module, calls: Sequence[Call]) -> None:
    """Compute the calls, one after another."""
    for call in calls:
        call.run(denoiser)
