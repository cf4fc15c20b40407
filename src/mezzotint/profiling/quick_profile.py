"""Profiles at once: what was measured on this machine before, or else an estimate of few calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers import DiffusionPipeline
from filelock import FileLock

from mezzotint._journal import Journal, Record
from mezzotint.errors import JournalError
from mezzotint.plan import Choice
from mezzotint.profiling.cached_profile import cache_file, header_of, subject_of
from mezzotint.profiling.measure import is_measured, measure_profile, measure_quickly
from mezzotint.profiling.profile import Profile
from mezzotint.profiling.runs import Work
from mezzotint.profiling.timer import Timer

QUICK = Timer(repeats=1, most=5, seconds=0.004)
"""Some milliseconds for each distinct piece of work and choice."""


def quick_profile(
    pipe: DiffusionPipeline,
    choices: Sequence[Choice],
    work: Work | None = None,
    *,
    timer: Timer = QUICK,
) -> tuple[Profile, bool]:
    """The profile that `profile_pipeline` has measured on this machine, or an estimate of it.

    An estimate is kept in a file of its own: no limit to a latency is ever held by it.

    Args:
        pipe: floating.
        choices: that every layer should have a figure for.
        work: at what; by default one image.
        timer: of an estimate.

    Returns:
        The profile, and whether it was measured with care.

    Raises:
        UsageError, ModelError, JournalError: as `profile_pipeline`.
    """
    subject = subject_of(pipe, work or Work())
    header = header_of(subject)
    known = _held(cache_file(header), header)
    if is_measured(subject, choices, known):
        return measure_profile(subject, choices, known, timer), True
    path = cache_file(header, "profiles/{}.quick.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")), Journal(path, header) as journal:
        return measure_quickly(subject, choices, journal, timer), False


def _held(path: Path, header: dict[str, object]) -> Journal:
    """Finished measurements of a file, in memory; none where it cannot be read."""
    found = Journal(None, header)
    try:
        found.entries.update({key: dict(each) for key, each in Record.read(path).entries.items()})
    except JournalError:
        found.entries.clear()
    return found
