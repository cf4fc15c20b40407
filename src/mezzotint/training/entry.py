"""The way into a training: what stands against it, and the state from which it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from mezzotint._progress import meter
from mezzotint.errors import UsageError
from mezzotint.models import Sampling, evaluating, find_denoiser
from mezzotint.models.offloading import check_stays
from mezzotint.training.curve import Curve
from mezzotint.training.fingerprint import LENGTH, fingerprint
from mezzotint.training.loop import Loop
from mezzotint.training.options import Training
from mezzotint.training.states import StateFolder
from mezzotint.training.student import Student
from mezzotint.training.trajectories import Trajectories


def train(
    student: Student,
    pipe: DiffusionPipeline,
    sampling: Sampling,
    options: Training,
    folder: str | Path | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Curve:
    """Distill the floating denoiser into the student, along the pipeline's own trajectories.

    A training that was interrupted goes on from the folder's state; one that is done is not
    repeated. With `options.steps` the result does not depend on interruptions. Where the length is
    0, the student takes the folder's state, whatever the length of that training, and nothing is
    trained or written.

    Args:
        student: of the pipeline's denoiser; trained in place.
        pipe: floating; runs its own scheduler and guidance.
        sampling: images that trajectories are of, with noise of their own.
        options: as the student was made with.
        folder: for the state of training, every minute and at the end; None to keep none.
        clock: tells seconds.

    Raises:
        UsageError: the pipeline has another denoiser, or one in float16 on a
            CPU, or one that is moved whenever it runs, or calls it once for each half of guidance;
            or the folder holds something else.
        JournalError: the folder is of another training, which is named; is damaged; or cannot be
            written.
        TrainingError: NaN, or a loss that grows; the step and the layer are named, the student and
            the folder keep the last good state, which a length of 0 takes up.
        ModelError: the pipeline fails, or makes no images from noise.
    """
    component, denoiser = find_denoiser(pipe)
    if denoiser is not student.denoiser:
        raise UsageError("pipe: has another denoiser than the student; give the student's own")
    check_stays(component, denoiser)
    first = next(denoiser.parameters())
    if first.dtype == torch.float16 and first.device.type == "cpu":
        raise UsageError("pipe: is in float16, in which no CPU trains; load it in float32")
    identity = fingerprint(student, pipe, sampling, options)
    ignored = frozenset() if options.trains else LENGTH
    states = StateFolder(None if folder is None else Path(folder), identity, ignored)
    known = states.load()
    share = options.own_share if options.trajectory == "mixed" else 0.0
    trajectories = Trajectories(pipe, denoiser, sampling, options.batch, options.seed, share)
    loop = Loop(student, trajectories, options, states, clock)
    if known is not None:
        loop.restore(known)
    if options.trains:
        with evaluating(denoiser), meter("Training") as bar:
            loop.run(bar)
    return Curve(
        loop.position.updates, loop.position.minutes, options.to_dict(), loop.position.points
    )
