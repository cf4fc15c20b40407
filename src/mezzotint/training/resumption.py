"""Look at the states of a training before anything is done that takes long."""

from __future__ import annotations

from pathlib import Path

from diffusers import DiffusionPipeline

from mezzotint.models import Sampling
from mezzotint.training.fingerprint import LENGTH, OF_STUDENT, surroundings
from mezzotint.training.options import Training
from mezzotint.training.states import StateFolder


def has_state(folder: Path | None) -> bool:
    """True where a folder holds the state of a training.

    Raises:
        UsageError: it holds something else.
    """
    return StateFolder(folder, {}).begun


def check_state(
    folder: Path, pipe: DiffusionPipeline, sampling: Sampling, options: Training
) -> None:
    """Refuse a state that a training of these options will not go on from.

    All is compared but what only a student tells: its plan, and what it starts from.

    Args:
        folder: with the state.
        pipe: floating.
        sampling: images of the training.
        options: of a length of 0, whose state may be of a training of any length.

    Raises:
        JournalError: it is of another training, which is named, or damaged.
    """
    ignored = OF_STUDENT if options.trains else OF_STUDENT | LENGTH
    StateFolder(folder, surroundings(pipe, sampling, options), ignored).load()
