"""Speed of a packed pipeline beside its floating original, on this machine."""

from __future__ import annotations

import time
from functools import partial

import torch
from diffusers import DiffusionPipeline

from mezzotint.checkpoint import packed_plans
from mezzotint.engines import attach_engine
from mezzotint.evaluation import (
    CallTimes,
    EngineTime,
    Source,
    able_engines,
    call_times,
    calls_of,
    others,
    packed_denoisers,
    run_calls,
)
from mezzotint.models import denoising_module, device_of, find_denoisers
from mezzotint.plan import Sampling
from mezzotint.profiling import Machine, first_calls, interleaved_medians, plan_latency
from mezzotint.speed.floating import Clock, estimated, floating_bytes, stand_in
from mezzotint.speed.known_times import TORCH, KnownTimes

_SMALL_BYTES, _SMALL_SECONDS = 2**30, 2.0
"""Floating weights, and a call, that are still made and timed to tell how fast a result is."""


def speed(
    pipe: DiffusionPipeline,
    *,
    original: DiffusionPipeline | None = None,
    sampling: Sampling | None = None,
    every_engine: bool = False,
    clock: Clock = time.perf_counter,
) -> CallTimes:
    """Times of one call of a packed pipeline, beside the floating one's; `verdict` says it all.

    Beside the original, both are timed. Without it, what was measured on this machine before is
    told; or what the plan's profile has predicted, if it is of this machine; or else a floating
    copy of a small denoiser is timed, and each distinct layer of a large one. What was measured is
    kept in the user's cache folder.

    Args:
        pipe: with packed denoisers; under whatever engine.
        original: its floating pipeline, if that is at hand.
        sampling: of which the first image's first calls are timed; by default the plan's own.
        every_engine: time all engines that are installed, not torch alone; beside the original.
        clock: returns seconds.

    Raises:
        UsageError: no denoiser is packed.
        ModelError: the pipeline fails, or no engine computes its calls.
    """
    plain = attach_engine(pipe, TORCH)
    sampling = planned_sampling(plain) if sampling is None else sampling
    known = KnownTimes.of(plain, sampling)
    if original is not None:
        names = able_engines(plain) if every_engine else (TORCH,)
        return _kept(known, call_times(original, plain, names, sampling=sampling, clock=clock))
    if (found := _known_times(plain, known) or _predicted(plain)) is not None:
        return found
    return _kept(known, _estimated(plain, sampling, clock))


def planned_sampling(pipe: DiffusionPipeline) -> Sampling | None:
    """The sampling that the plan of a packed pipeline was calibrated on; None if it names none."""
    settings = (plan.calibration for plan in packed_plans(pipe).values())
    return next((each.sampling for each in settings if each is not None), None)


def _kept(known: KnownTimes, times: CallTimes) -> CallTimes:
    if any(each.engine == TORCH for each in times.packed):
        known.with_call_times(times).save()
    return times


def _known_times(pipe: DiffusionPipeline, known: KnownTimes) -> CallTimes | None:
    """Times of before; None where torch was not compared with the floating denoiser."""
    if known.floating is None:
        return None
    floating, source = known.floating
    ratios = {name: known.ratio(name) for name in able_engines(pipe)}
    milliseconds = known.milliseconds
    times = [
        EngineTime(name, ratio * milliseconds, ratio / floating)
        for name, ratio in ratios.items()
        if ratio is not None
    ]
    refused, untimed = others(pipe, [each.engine for each in times])
    return CallTimes(
        floating * milliseconds,
        tuple(sorted(times, key=lambda each: each.ratio)),
        _device(pipe),
        torch.get_num_threads(),
        _components(pipe),
        refused=refused,
        untimed=untimed,
        source=source,
    )


def _predicted(pipe: DiffusionPipeline) -> CallTimes | None:
    """The latency that the plan was made for; None where it is of no such plan, or elsewhere."""
    plans = list(packed_plans(pipe).values())
    found = plan_latency(plans[0]) if len(plans) == 1 else None
    if found is None or found.batch != 1 or found.machine != Machine.here(_device(pipe)).key:
        return None
    return _torch_alone(pipe, found.predicted_ms, found.float_ms, "predicted by a profile")


def _estimated(pipe: DiffusionPipeline, sampling: Sampling | None, clock: Clock) -> CallTimes:
    calls = calls_of(packed_denoisers(pipe), first_calls(pipe, sampling))
    module = denoising_module(pipe)
    run = partial(run_calls, module, calls)
    # Recording has run it once already.
    once = interleaved_medians({TORCH: run}, repeats=1, warmup=0, clock=clock)
    seconds = once[TORCH].median
    if floating_bytes(pipe) <= _SMALL_BYTES and seconds <= _SMALL_SECONDS:
        return call_times(stand_in(pipe), pipe, sampling=sampling, clock=clock)
    found = estimated(module, calls, clock)
    source: Source = "estimated from its layers"
    return _torch_alone(pipe, 1e3 * found.packed, 1e3 * found.floating, source)


def _torch_alone(
    pipe: DiffusionPipeline, milliseconds: float, floating: float, source: Source
) -> CallTimes:
    refused, untimed = others(pipe, (TORCH,))
    return CallTimes(
        floating,
        (EngineTime(TORCH, milliseconds, milliseconds / floating),),
        _device(pipe),
        torch.get_num_threads(),
        _components(pipe),
        refused=refused,
        untimed=untimed,
        source=source,
    )


def _components(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """Names of the packed ones among several denoisers; none for the only one of a pipeline."""
    return packed_denoisers(pipe) if len(find_denoisers(pipe)) > 1 else ()


def _device(pipe: DiffusionPipeline) -> str:
    return str(device_of(denoising_module(pipe)))
