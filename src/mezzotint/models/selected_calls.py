"""A few of a pipeline's calls, and of their samples, picked while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.models.calls import Call, device_of
from mezzotint.models.recorder import Recorder
from mezzotint.models.rows import batch_size, rows_of
from mezzotint.models.sampling import run_batches
from mezzotint.models.spread import (
    members_of_step,
    rows_of_batch,
    steps_of_strata,
    strata_of_runs,
)
from mezzotint.plan import CallSelection, Sampling

_APART = 0.05
"""Relative difference of outputs from which samples are said to depend on each other."""


def record_selection(
    pipe: DiffusionPipeline, denoiser: nn.Module, sampling: Sampling, selection: CallSelection
) -> tuple[Call, ...]:
    """Run the pipeline and keep the selection's calls, cut ones with outputs of their own."""
    batches = tuple(sampling.batches())
    strata = strata_of_runs(selection.calls, len(batches))
    calls: list[Call] = []
    steps, whole = None, False
    for run in track(sorted(strata), "Recording"):
        batch = batches[run]
        keeper = _Keeper(pipe, batch, selection, strata[run], steps, whole)
        kept = keeper.run(denoiser)
        own = kept if whole else _with_own_outputs(kept, keeper.cut, denoiser)
        if own is None:
            whole = True
            own = _Keeper(pipe, batch, selection, strata[run], keeper.steps, whole).run(denoiser)
        calls += own
        steps = keeper.steps
    return tuple(calls)


@dataclass
class _Keeper:
    """Picks the calls to keep of one run of a pipeline while they are made.

    Attributes:
        pipe: the pipeline; its scheduler tells how many steps there will be.
        sampling: of this run alone.
        selection: of all runs.
        strata: parts of the schedule that this run gives a call for.
        steps: distinct timesteps of the run; None where they are not known yet.
        whole: keep all samples of a call.
        cut: whether any call was cut.
    """

    pipe: DiffusionPipeline
    sampling: Sampling
    selection: CallSelection
    strata: tuple[int, ...]
    steps: int | None
    whole: bool
    cut: bool = field(default=False, init=False)

    def run(self, denoiser: nn.Module) -> list[Call]:
        """Run the pipeline; once more where it took other steps than its scheduler had told."""
        for _ in range(2):
            self._begin()
            recorder = Recorder(self._take, self._wants)
            with recorder.watching(denoiser):
                for _ in run_batches(self.pipe, self.sampling, output_type="latent"):
                    self._end_step()
            told, self.steps = self.steps, recorder.step + 1
            if told == self.steps:
                break
        return self._kept

    def _begin(self) -> None:
        self._kept: list[Call] = []
        self._of_step: list[Call] = []
        self._places: dict[int, tuple[int, ...]] | None = None

    def _wants(self, step: int) -> bool:
        if self._places is None:
            # Known from the first call on: pipelines set the timesteps when they begin.
            self.steps = self.steps or scheduled_steps(self.pipe)
            self._places = steps_of_strata(self.strata, self.selection.calls, self.steps)
        return step in self._places

    def _take(self, call: Call) -> None:
        if self._of_step and self._of_step[0].step != call.step:
            self._end_step()
        self._of_step.append(call if self.whole else self._samples(call))

    def _samples(self, call: Call) -> Call:
        rows = batch_size(call)
        if rows is None or rows <= self.selection.samples:
            return call
        assert self._places is not None  # calls are taken of steps that are wanted
        several = len(self._places[call.step]) > 1
        place = len(self._kept) + (len(self._of_step) if several else 0)
        prompts = len(self.sampling)
        self.cut = True
        return rows_of(call, rows_of_batch(place, rows, prompts, self.selection.samples))

    def _end_step(self) -> None:
        """Keep those of the step's calls whose turn it is."""
        if self._of_step and self._places is not None:
            places = self._places[self._of_step[0].step]
            turns = members_of_step(places, len(self._of_step))
            self._kept += [self._of_step[turn] for turn in turns]
        self._of_step = []


def scheduled_steps(pipe: DiffusionPipeline) -> int:
    """Distinct timesteps, one after another, of the run that a pipeline has begun; 0 if unknown."""
    timesteps = getattr(getattr(pipe, "scheduler", None), "timesteps", None)
    if not isinstance(timesteps, Tensor) or timesteps.ndim != 1:
        return 0
    return len(torch.unique_consecutive(timesteps))


def _with_own_outputs(calls: list[Call], cut: bool, denoiser: nn.Module) -> list[Call] | None:
    """Calls of some samples, run by themselves; None where that changes what comes out.

    Rounding depends on the size of a batch: measured against outputs of their own, a model that
    is not changed has no error at all.
    """
    if not cut:
        return calls
    found = []
    for call in calls:
        try:
            own = call.to(device_of(denoiser)).run(denoiser).cpu()
        except Exception:  # whatever a module's own code may raise for another batch
            return None
        assert call.output is not None
        if own.shape != call.output.shape:
            return None
        apart = (own.double() - call.output.double()).norm()
        if apart > _APART * call.output.double().norm():
            return None
        found.append(replace(call, output=own))
    return found
