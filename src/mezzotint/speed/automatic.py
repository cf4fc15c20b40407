"""Choice of the engine that computes a pipeline's calls in the least time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from diffusers import DiffusionPipeline

from mezzotint._progress import announcer
from mezzotint.engines import AUTO, attach_engine, check_engine
from mezzotint.errors import ModelError, UsageError, first_line
from mezzotint.evaluation import (
    Trials,
    calls_of,
    engine_refusals,
    engine_trials,
    packed_denoisers,
)
from mezzotint.models import Pipeline, find_denoisers
from mezzotint.plan import Sampling
from mezzotint.profiling import first_calls, interleaved_medians
from mezzotint.runtime import packed_layers
from mezzotint.speed.expected import planned_sampling
from mezzotint.speed.floating import Clock
from mezzotint.speed.known_times import TORCH, KnownTimes

_REPEATS = 3


@dataclass(frozen=True)
class ChosenEngine:
    """The engine that `auto` has taken, and why.

    Attributes:
        name: of the engine.
        ratios: engine → its time by torch's, or else the first one's, fastest first; empty where
            nothing was timed.
        milliseconds: of one call by that; 0 where nothing was timed.
        left_out: engine → why it could not be chosen.
        untimed: why nothing was timed; empty where it was.
    """

    name: str
    ratios: Mapping[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict)
    untimed: str = ""

    @property
    def line(self) -> str:
        """One line for people."""
        best = self.ratios.get(self.name)
        others = [name for name in self.ratios if name != self.name]
        found = f"engine auto: {self.name}"
        if best is not None and others:
            times = (
                f"{best / self.ratios[other]:.2f}x the time of {other} "
                f"({best * self.milliseconds:.1f} ms, "
                f"{self.ratios[other] * self.milliseconds:.1f} ms)"
                for other in others
            )
            found += f" takes {', '.join(times)}"
        reasons = [f"not timed: {self.untimed}"] if self.untimed else []
        reasons += [f"{name} {why}" for name, why in self.left_out.items()]
        return "; ".join([found, *reasons])


def with_engine(
    pipe: DiffusionPipeline,
    engine: str = AUTO,
    sampling: Sampling | None = None,
    *,
    batch: int = 1,
    clock: Clock = time.perf_counter,
) -> Pipeline:
    """The pipeline with its denoiser, or each of several, computed by `engine`.

    All tensors are shared. For `auto` one line says which engine was chosen, to whom long work is
    announced.

    Args:
        pipe: left as it is; whatever engine it has.
        engine: `torch`, `openvino`, or `auto`, the fastest of those that work, as
            `fastest_engine` finds it. A pipeline that is not packed keeps its engine with `auto`.
        sampling: images that the pipeline is to make: `auto` times their first call.
        batch: how many of them at once.
        clock: returns seconds.

    Raises:
        UsageError: the engine is unknown, not installed, or cannot serve the pipeline where it is;
            or there is no such sampling or batch.
        ModelError: no engine computes the pipeline's call.
    """
    check_engine(engine)
    _check_images(sampling, batch)
    if engine != AUTO:
        return attach_engine(pipe, engine)
    if not any(packed_layers(part) for part in find_denoisers(pipe).values()):
        # A denoiser in floating point is compiled only on request: our plan adds nothing there.
        unchanged: Pipeline = pipe
        return unchanged
    served, chosen = fastest_engine(pipe, sampling, batch=batch, clock=clock)
    if (tell := announcer()) is not None:
        tell(chosen.line)
    return served


def fastest_engine(
    pipe: DiffusionPipeline,
    sampling: Sampling | None = None,
    *,
    batch: int = 1,
    clock: Clock = time.perf_counter,
) -> tuple[Pipeline, ChosenEngine]:
    """Time one call of the packed denoisers by every engine that is able, and take the fastest.

    Engines that refuse the pipeline, or fail, drop out. Times are kept in the user's cache folder:
    nothing is run where all are known. Where only one engine is left, or the pipeline cannot be
    run on the sampling, nothing is timed, and the first of them is taken.

    Args:
        pipe: with packed denoisers; those that are floating keep their engine.
        sampling: whose images are repeated or cut to `batch`; by default the plan's own, or one
            of a usual prompt.
        batch: images at once.
        clock: returns seconds.

    Returns:
        The pipeline under that engine, and what was found.

    Raises:
        UsageError: no denoiser is packed; or there is no such sampling or batch.
        ModelError: no engine computes the call.
    """
    _check_images(sampling, batch)
    plain = attach_engine(pipe, TORCH, packed_denoisers(pipe))
    refusals = engine_refusals(plain)
    able = [name for name, why in refusals.items() if why is None]
    left_out = {name: why for name, why in refusals.items() if why is not None}
    if able == [TORCH]:
        return plain, ChosenEngine(TORCH, left_out=left_out)
    sampling = planned_sampling(plain) if sampling is None else sampling
    known = KnownTimes.of(plain, sampling, batch)
    ratios = {name: ratio for name in able if (ratio := known.ratio(name)) is not None}
    # The baseline has not failed where anything is known.
    left_out |= known.failures(name for name in able if name not in ratios and name != TORCH)
    trials = Trials()
    if any(name not in ratios and name not in left_out for name in able):
        try:
            calls = calls_of(packed_denoisers(plain), first_calls(plain, sampling, batch))
        except (ModelError, UsageError) as cause:
            chosen = ChosenEngine(able[0], left_out=left_out, untimed=first_line(cause))
            return attach_engine(plain, able[0], packed_denoisers(plain)), chosen
        # Torch first: it is what the others are compared with.
        names = sorted(
            (name for name in able if name not in left_out), key=lambda name: name != TORCH
        )
        trials = engine_trials(plain, names, calls)
        found = interleaved_medians(trials.runs, repeats=_REPEATS, warmup=0, clock=clock)
        ratios = {name: each.ratio for name, each in found.items()}
        left_out |= trials.left_out
        first = next(iter(trials.runs))
        known = known.with_engines(1e3 * found[first].median, ratios, trials.left_out)
        if first == TORCH:
            known.save()
    ratios = dict(sorted(ratios.items(), key=lambda item: item[1]))
    name = next(iter(ratios))
    served = trials.pipes.get(name)
    if served is None:
        served = attach_engine(plain, name, packed_denoisers(plain))
    return served, ChosenEngine(name, ratios, known.milliseconds, left_out)


def _check_images(sampling: object, batch: object) -> None:
    if not (sampling is None or isinstance(sampling, Sampling)):
        raise UsageError(
            f"sampling: is a {type(sampling).__name__}; give a mezzotint.Sampling, such as "
            'Sampling("a prompt")'
        )
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f"batch: is {batch!r}; give a number of images, 1 or more")
