"""Calls that a recipe will record, counted before the pipeline is run for them."""

from __future__ import annotations

from dataclasses import dataclass

from mezzotint.models import Call, default_steps
from mezzotint.models.spread import steps_of_strata, strata_of_runs
from mezzotint.plan import CallSelection
from mezzotint.recipes.auto.rehearsal import Rehearsal
from mezzotint.recipes.job import Job


@dataclass(frozen=True)
class ExpectedCalls:
    """Calls and their rows; a row is one image, or one half of guidance of it.

    Attributes:
        count: calls that are kept.
        rows: of all of these.
        recorded: rows that the denoiser computes until they are there; 0 where calls are given.
    """

    count: int
    rows: int
    recorded: int


def expected_calls(
    job: Job, selection: CallSelection | None, rehearsal: Rehearsal
) -> ExpectedCalls:
    """Count the calls of a pipeline's run that are kept, of one denoiser call in each step.

    Args:
        job: has the calls, or a pipeline and what to make with it.
        selection: the calls to keep; None for all of them, whole.
        rehearsal: tells the rows of an image.
    """
    if job.calls:
        return ExpectedCalls(len(job.calls), sum(map(_rows, job.calls)), 0)
    assert job.sampling is not None
    steps = steps_of(job)
    widths = [rows_of_images(rehearsal, len(batch)) for batch in job.sampling.batches()]
    if selection is None:
        rows = steps * sum(widths)
        return ExpectedCalls(steps * len(widths), rows, rows)
    count = rows = recorded = 0
    for run, strata in strata_of_runs(selection.calls, len(widths)).items():
        kept = len(steps_of_strata(strata, selection.calls, steps))
        width = min(widths[run], selection.samples)
        count, rows, recorded = count + kept, rows + kept * width, recorded + steps * widths[run]
        if width < widths[run]:  # run once more by themselves
            recorded += kept * width
    return ExpectedCalls(count, rows, recorded)


def steps_of(job: Job) -> int:
    """Denoising steps of an image of the job's pipeline."""
    assert job.pipe is not None
    assert job.sampling is not None
    return default_steps(job.pipe) if job.sampling.steps is None else job.sampling.steps


def rows_of_images(rehearsal: Rehearsal, images: int) -> int:
    """Rows of a call of so many images."""
    return images * rehearsal.rows // (rehearsal.images or rehearsal.rows)


def _rows(call: Call) -> int:
    return 1 if call.output is None else len(call.output)
