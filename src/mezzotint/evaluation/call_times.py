"""Time of one denoiser call beside the floating one's: is a result faster here, or slower?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import DiffusionPipeline

from mezzotint.engines import engines, with_engine
from mezzotint.models import Sampling, device_of, find_denoiser
from mezzotint.profiling import first_call, interleaved_medians

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
    """

    floating_ms: float
    packed: tuple[EngineTime, ...]
    device: str
    threads: int

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
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for people: one for each engine, and a note where the result is slower."""
        found = [
            f"one denoiser call takes {each.ratio:.2f}x the floating one's time "
            f"({each.milliseconds:.1f} ms, {self.floating_ms:.1f} ms) by {each.engine} on "
            f"{self.device}, {self.threads} threads, batch 1"
            for each in self.packed
        ]
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


def able_engines(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the engines that can compute a pipeline's denoiser here."""
    denoiser = find_denoiser(pipe)[1]
    return tuple(each.name for each in engines() if each.refuse(denoiser) is None)


@torch.no_grad()
def call_times(
    reference: DiffusionPipeline,
    pipe: DiffusionPipeline,
    names: Sequence[str] = ("torch",),
    *,
    sampling: Sampling | None = None,
    repeats: int = 3,
) -> CallTimes:
    """Time one call of both denoisers, interleaved.

    Args:
        reference: the floating pipeline.
        pipe: the packed one.
        names: of engines that compute the packed denoiser.
        sampling: of which the first image's first call is timed; by default of a usual prompt.
        repeats: timed rounds.

    Raises:
        UsageError: an engine is unknown or cannot compute it; or fewer than one repeat.
    """
    floating = find_denoiser(reference)[1]
    call = first_call(reference, sampling, 1)
    functions: dict[str, Callable[[], object]] = {_FLOATING: partial(call.run, floating)}
    for name in names:
        functions[name] = partial(call.run, find_denoiser(with_engine(pipe, name))[1])
    found = interleaved_medians(functions, repeats=repeats, warmup=1)
    packed = [EngineTime(name, 1e3 * found[name].median, found[name].ratio) for name in names]
    return CallTimes(
        1e3 * found[_FLOATING].median,
        tuple(sorted(packed, key=lambda each: each.ratio)),
        str(device_of(floating)),
        torch.get_num_threads(),
    )
