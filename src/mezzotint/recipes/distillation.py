"""Training of a plan: the floating pipeline teaches what its packed form will compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from diffusers import DiffusionPipeline

from mezzotint._progress import announcer
from mezzotint.errors import UsageError
from mezzotint.models import Sampling
from mezzotint.models.offloading import check_stays
from mezzotint.recipes.default_prompts import sampling_beyond
from mezzotint.recipes.job import Job, Outcome
from mezzotint.runtime import LazyWeight
from mezzotint.training import Student, Training, check_state, has_state, only_here, train

USUAL_MINUTES = 10.0
"""Length of a training where nothing is said."""

Distill = Callable[[Outcome], Outcome]
"""Makes of a plan and its calibration the same plan with trained values, and the curve."""


@contextmanager
def distilling(job: Job, training: Training, field: str = "train_minutes") -> Iterator[Distill]:
    """Make sure that a training can begin, or go on, and give the way to it.

    So what stands in its way is found before anything is calibrated, and no other run takes its
    place meanwhile. Where its length is 0, what an earlier one has come to is taken, if states of
    one are kept, or the plan stays as it is.

    Args:
        job: its pipeline is the teacher; prompts are those of its sampling, or where nobody chose
            them all that come with the model. Its journal's place is also that of the training's
            states, from which an interrupted one goes on.
        training: options.
        field: the recipe's option of its length, for messages.

    Raises:
        UsageError: there is no pipeline that runs along its trajectory, or one whose denoiser is
            moved whenever it runs, or whose weights stay on disk; or another run trains in the same
            place.
        TrainingError: the loss is NaN, or grows.
        JournalError: the states are of another training, or damaged.
    """
    folder = job.measuring.training
    kept = has_state(folder)
    if not training.trains and not kept:
        yield lambda outcome: outcome
        return
    if any(isinstance(each, LazyWeight) for each in job.denoiser.parameters()):
        raise UsageError(
            f"{field}: training keeps all weights in memory, and those of a streamed denoiser stay "
            "in their files; give 0, or load the pipeline without streaming"
        )
    if job.pipe is None or job.sampling is None:
        raise UsageError(
            f"{field}: training runs a pipeline from noise to image, which a bare module does "
            "not have; give 0, or quantize the pipeline"
        )
    check_stays(job.model, job.denoiser)
    sampling = sampling_beyond(job.pipe, job.sampling)
    with only_here(folder):
        if folder is not None and kept:
            check_state(folder, job.pipe, sampling, training)
        yield partial(_distilled, job, job.pipe, sampling, training)


def _distilled(
    job: Job,
    pipe: DiffusionPipeline,
    sampling: Sampling,
    training: Training,
    outcome: Outcome,
) -> Outcome:
    listener = announcer()
    if listener is not None:
        listener(_forecast(training))
    student = Student.of(job.denoiser, outcome.plan, outcome.calibration, training)
    curve = train(student, pipe, sampling, training, job.measuring.training)
    return replace(
        outcome, plan=student.trained_plan, calibration=student.calibration(), training=curve
    )


def _forecast(training: Training) -> str:
    if not training.trains:
        return "Training: none; what an earlier one has come to is taken"
    if training.minutes is not None:
        return f"Training: {training.minutes:g} minutes"
    return f"Training: {training.steps:,} updates"
