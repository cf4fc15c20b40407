"""Training of a plan: the floating pipeline teaches what its packed form will compute."""

from __future__ import annotations

from dataclasses import replace

from mezzotint._progress import announcer
from mezzotint.errors import UsageError
from mezzotint.recipes.default_prompts import prompts_beyond
from mezzotint.recipes.job import Job, Outcome
from mezzotint.training import Student, Training, train

USUAL_MINUTES = 10.0
"""Length of a training where nothing is said."""


def distilled(job: Job, outcome: Outcome, training: Training) -> Outcome:
    """The same plan with trained values, and the curve of the training.

    Args:
        job: its pipeline is the teacher; prompts are those of its sampling, or where nobody chose
            them all that come with the model. Its journal's place is also that of the training's
            states, from which an interrupted one goes on.
        outcome: plan and calibration of its denoiser.
        training: options.

    Raises:
        UsageError: there is no pipeline that runs along its trajectory.
        TrainingError: the loss is NaN, or grows.
        JournalError: the states are of another training.
    """
    if job.pipe is None or job.sampling is None:
        raise UsageError(
            "train_minutes: training runs a pipeline from noise to image, which a bare module does "
            "not have; give 0, or quantize the pipeline"
        )
    listener = announcer()
    if listener is not None:
        listener(_forecast(training))
    student = Student.of(job.denoiser, outcome.plan, outcome.calibration, training)
    prompts = prompts_beyond(job.pipe, job.sampling)
    curve = train(student, job.pipe, prompts, training, job.measuring.training)
    return replace(
        outcome, plan=student.trained_plan, calibration=student.calibration(), training=curve
    )


def _forecast(training: Training) -> str:
    if training.minutes is not None:
        return f"Training: {training.minutes:g} minutes"
    return f"Training: {training.steps:,} updates"
