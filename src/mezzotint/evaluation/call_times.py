"""Time of one denoiser call beside the floating one's: is a result faster here, or slower?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._words import listed
from mezzotint.engines import engines, with_engine
from mezzotint.errors import ModelError, UsageError, first_line
from mezzotint.models import (
    Call,
    Sampling,
    component_of,
    denoising_module,
    denoising_parts,
    device_of,
    find_denoisers,
)
from mezzotint.profiling import first_calls, interleaved_medians
from mezzotint.runtime import packed_layers

_FLOATING = "floating"


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
        left_out: engine → why it was not timed.
    """

    floating_ms: float
    packed: tuple[EngineTime, ...]
    device: str
    threads: int
    components: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

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
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for people: one for each engine, and notes, such as of a slower result."""
        found = [
            f"{self._subject} takes {each.ratio:.2f}x the floating one's time "
            f"({each.milliseconds:.1f} ms, {self.floating_ms:.1f} ms) by {each.engine} on "
            f"{self.device}, {self.threads} threads, batch 1"
            for each in self.packed
        ]
        found += [f"note: {name} was not timed: {why}" for name, why in self.left_out.items()]
        if self.fastest.ratio > 1:
            found.append(
                "note: on this machine the result is slower than the floating model: it saves "
                "bytes; for speed, set a --latency, or try other inputs (--act-bits) and engines "
                "(`mezzotint bench --engine`)"
            )
        elif len(self.packed) > 1:
            found.append(
                f"note: {self.fastest.engine} is the fastest engine here; load the result with "
                f'engine="{self.fastest.engine}"'
            )
        return tuple(found)

    @property
    def _subject(self) -> str:
        if not self.components:
            return "one denoiser call"
        each = " each" if len(self.components) > 1 else ""
        return f"one call{each} of {listed(self.components)}"


def able_engines(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the engines that can compute a pipeline's denoisers here, as far as they can tell.

    Raises:
        ModelError: the pipeline has none.
    """
    parts = denoising_parts(denoising_module(pipe)).values()
    return tuple(
        each.name for each in engines() if all(each.refuse(part) is None for part in parts)
    )


@torch.no_grad()
def call_times(
    reference: DiffusionPipeline,
    pipe: DiffusionPipeline,
    names: Sequence[str] = ("torch",),
    *,
    sampling: Sampling | None = None,
    repeats: int = 3,
) -> CallTimes:
    """Time one call of both denoisers, interleaved; of several, one of each that is packed.

    An engine that fails is left out, unless all do.

    Args:
        reference: the floating pipeline.
        pipe: the packed one.
        names: of engines that compute the packed denoisers.
        sampling: of which the first image's first calls are timed; by default of a usual prompt.
        repeats: timed rounds.

    Raises:
        ModelError: no engine computes the call; or the pipeline fails.
        UsageError: no denoiser is packed; or fewer than one repeat.
    """
    floating = denoising_module(reference)
    calls = _calls_of(_packed_denoisers(pipe), first_calls(reference, sampling))
    functions: dict[str, Callable[[], object]] = {_FLOATING: partial(_run, floating, calls)}
    left_out: dict[str, str] = {}
    # Every function is called once before any is timed: some engines compile, and fail, only then.
    functions[_FLOATING]()
    for name in names:
        try:
            served = partial(_run, denoising_module(with_engine(pipe, name)), calls)
            served()
        except Exception as cause:  # an engine's own code may raise anything
            left_out[name] = first_line(cause)
        else:
            functions[name] = served
    able = [name for name in names if name not in left_out]
    if not able:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise ModelError(f"no engine computes a call of the packed denoiser ({reasons})")
    found = interleaved_medians(functions, repeats=repeats, warmup=0)
    times = [EngineTime(name, 1e3 * found[name].median, found[name].ratio) for name in able]
    return CallTimes(
        1e3 * found[_FLOATING].median,
        tuple(sorted(times, key=lambda each: each.ratio)),
        str(device_of(floating)),
        torch.get_num_threads(),
        tuple(component for call in calls if (component := component_of(call)) is not None),
        left_out,
    )


def _packed_denoisers(pipe: DiffusionPipeline) -> tuple[str, ...]:
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


def _calls_of(names: Sequence[str], calls: Sequence[Call]) -> list[Call]:
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


def _run(denoiser: nn.Module, calls: Sequence[Call]) -> None:
    for call in calls:
        call.run(denoiser)
