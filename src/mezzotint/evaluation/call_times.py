"""Time of one denoiser call beside the floating one's: is a result faster here, or slower?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline

from mezzotint._words import listed
from mezzotint.evaluation.engine_trials import (
    calls_of,
    engine_refusals,
    engine_trials,
    packed_denoisers,
    run_calls,
)
from mezzotint.models import Sampling, component_of, denoising_module, device_of
from mezzotint.profiling import first_calls, interleaved_medians

_FLOATING = "floating"

_TORCH = "torch"

_ALIKE = 0.05
"""Difference of times, as a share, that few repeats do not tell from none."""

Source = Literal["timed", "estimated from its layers", "predicted by a profile"]


@dataclass(frozen=True)
class EngineTime:
    """Time of one call of the packed denoiser.

    Attributes:
        engine: that computed it.
        milliseconds: median.
        ratio: to the floating denoiser's, of the same rounds; below 1 is faster.
    """

    engine: str
    milliseconds: float
    ratio: float


@dataclass(frozen=True)
class CallTimes:
    """Times of one call on this machine, as few repeats tell them.

    Attributes:
        floating_ms: of the floating denoiser, by torch.
        packed: by engine, fastest first.
        device: that computed.
        threads: of the processor.
        components: denoisers that are called, once each; empty for the only one of a pipeline.
        left_out: engine → why it was not timed, though asked for.
        refused: engine → why it cannot be chosen here.
        untimed: engines that could be chosen, and that nobody has asked to time.
        source: of the ratios.
        subject: what is compared with the floating model, for people.
    """

    floating_ms: float
    packed: tuple[EngineTime, ...]
    device: str
    threads: int
    components: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    untimed: tuple[str, ...] = ()
    source: Source = "timed"
    subject: str = "the result"

    @property
    def fastest(self) -> EngineTime:
        """The engine of the least time."""
        return self.packed[0]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "floating_ms": self.floating_ms,
            "packed": [vars(each) for each in self.packed],
            "device": self.device,
            "threads": self.threads,
            "components": list(self.components),
            "left_out": dict(self.left_out),
            "refused": dict(self.refused),
            "untimed": list(self.untimed),
            "source": self.source,
            "verdict": self.verdict,
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for people: one for each engine, why others were not timed, and the verdict."""
        found = [
            f"{self._subject} takes {each.ratio:.2f}x the floating one's time "
            f"({each.milliseconds:.1f} ms, {self.floating_ms:.1f} ms) by {each.engine} on "
            f"{self.device}, {self.threads} threads, batch 1"
            for each in self.packed
        ]
        found += [f"note: {name} was not timed: {why}" for name, why in self.left_out.items()]
        return (*found, f"note: {self.verdict}")

    @property
    def verdict(self) -> str:
        """One sentence: faster or slower than the floating model here, and which engine to choose.

        What is said is of torch, with which models are loaded where nothing is said.
        """
        usual = next((each for each in self.packed if each.engine == _TORCH), self.fastest)
        if abs(usual.ratio - 1) < _ALIKE:
            than = "about as fast as"
        else:
            than = f"{'slower' if usual.ratio > 1 else 'faster'} than"
        return (
            f"on this machine {self.subject} is {than} the floating model with engine "
            f"{usual.engine} ({usual.ratio:.2f}x its time, {self.source}; {self.device}, "
            f"{self.threads} threads){self._advice(usual)}"
        )

    def _advice(self, usual: EngineTime) -> str:
        """The end of the sentence: what else to choose."""
        best, slow = self.fastest, usual.ratio >= 1 + _ALIKE
        if best is not usual:
            still = ", which is slower as well" if best.ratio >= 1 + _ALIKE else ""
            return f'; choose engine="{best.engine}" ({best.ratio:.2f}x){still}'
        if not slow:
            return ""
        if self.untimed:
            return (
                f'; choose engine="{self.untimed[0]}", which compiles the whole denoiser, or "auto"'
                ", which times both"
            )
        reasons = "".join(
            f"; {name} {why}" for name, why in {**self.refused, **self.left_out}.items()
        )
        return (
            f"{reasons}; it saves bytes, and for speed set a --latency, or try other inputs "
            "(--act-bits)"
        )

    @property
    def _subject(self) -> str:
        if not self.components:
            return "one denoiser call"
        each = " each" if len(self.components) > 1 else ""
        return f"one call{each} of {listed(self.components)}"


@torch.no_grad()
def call_times(
    reference: DiffusionPipeline,
    pipe: DiffusionPipeline,
    names: Sequence[str] = (_TORCH,),
    *,
    sampling: Sampling | None = None,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> CallTimes:
    """Time one call of both denoisers, interleaved; of several, one of each that is packed.

    An engine that fails is left out, unless all do.

    Args:
        reference: the floating pipeline.
        pipe: the packed one.
        names: of engines that compute the packed denoisers.
        sampling: of which the first image's first calls are timed; by default of a usual prompt.
        repeats: timed rounds.
        clock: returns seconds.

    Raises:
        ModelError: no engine computes the call; or the pipeline fails.
        UsageError: no denoiser is packed; or fewer than one repeat.
    """
    floating = denoising_module(reference)
    calls = calls_of(packed_denoisers(pipe), first_calls(reference, sampling))
    run_floating = partial(run_calls, floating, calls)
    run_floating()  # as engines are, once before the clock is read
    trials = engine_trials(pipe, names, calls)
    functions: dict[str, Callable[[], object]] = {_FLOATING: run_floating, **trials.runs}
    found = interleaved_medians(functions, repeats=repeats, warmup=0, clock=clock)
    times = [EngineTime(name, 1e3 * found[name].median, found[name].ratio) for name in trials.runs]
    refused, untimed = others(pipe, names)
    return CallTimes(
        1e3 * found[_FLOATING].median,
        tuple(sorted(times, key=lambda each: each.ratio)),
        str(device_of(floating)),
        torch.get_num_threads(),
        tuple(component for call in calls if (component := component_of(call)) is not None),
        trials.left_out,
        refused,
        untimed,
    )


def others(
    pipe: DiffusionPipeline, names: Collection[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The engines beside those named: why some refuse a packed pipeline, and names of the rest."""
    found = {name: why for name, why in engine_refusals(pipe).items() if name not in names}
    refused = {name: why for name, why in found.items() if why is not None}
    return refused, tuple(name for name in found if name not in refused)
