"""Profiles of pipelines; what was measured before on this machine is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusers import DiffusionPipeline
from filelock import FileLock

from mezzotint._cache import cache_folder
from mezzotint._journal import Journal, discard_journal
from mezzotint._journal_lines import VERSION
from mezzotint.engines import engine_of
from mezzotint.errors import FormatError, ModelError, UsageError
from mezzotint.formats import FLOAT
from mezzotint.models import find_denoiser, inventory, model_name
from mezzotint.plan import Choice
from mezzotint.profiling.measure import CANDIDATES, measure_profile
from mezzotint.profiling.profile import Profile
from mezzotint.profiling.runs import Subject, Work, first_call, watch_runs
from mezzotint.profiling.timer import Timer
from mezzotint.runtime import packed_layers
from mezzotint.runtime.cpu.machine import Machine


def profile_pipeline(
    pipe: DiffusionPipeline,
    work: Work | None = None,
    *,
    choices: Sequence[Choice] = CANDIDATES,
    cache: Path | None = None,
    fresh: bool = False,
    timer: Timer | None = None,
) -> Profile:
    """Measure the pipeline's denoiser where it is, in its dtype.

    The first denoiser call of a run on `work`'s images is recorded, for the real input of every
    layer. Finished measurements are kept in a file per machine and work: an interrupted run goes
    on where it stopped, and a second one measures nothing. Another process that profiles the same
    is waited for.

    Args:
        pipe: floating.
        work: at what; by default one image.
        choices: what to measure beside the floating layers.
        cache: the file for finished measurements; by default one in the user's cache folder.
        fresh: forget what the file holds.
        timer: how often things are timed, and by which clock.

    Raises:
        UsageError: the batch is below 1; the pipeline is quantized already, or compiled.
        ModelError: it has no layer that could be quantized.
        JournalError: the cache file belongs to another machine or other work, or is damaged.
    """
    subject = subject_of(pipe, work or Work())
    header = header_of(subject)
    path = cache_file(header) if cache is None else cache
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two that time at once would disturb each other, and garble the file.
    with FileLock(path.with_name(f"{path.name}.lock")):
        if fresh:
            discard_journal(path)
        try:
            with Journal(path, header) as journal:
                return measure_profile(subject, choices, journal, timer or Timer())
        except KeyboardInterrupt as interruption:
            interruption.add_note(f"times are kept in {path}; repeat the command to go on")
            raise


def candidates(formats: Sequence[str], activations: Sequence[str]) -> tuple[Choice, ...]:
    """Every weight format with every activation format; the floating choice goes without saying.

    Raises:
        UsageError: a format is unknown; the message says what there is.
    """
    try:
        return tuple(
            Choice(weight, activation)
            for activation in dict.fromkeys(activations)
            for weight in dict.fromkeys(formats)
            if weight != FLOAT
        )
    except FormatError as cause:
        raise UsageError(f"formats: {cause}") from cause


def cache_file(header: Mapping[str, object], name: str = "profiles/{}.jsonl") -> Path:
    """File that keeps what this version measures on one machine, of one piece of work.

    It is in `cache_folder()`.

    Args:
        header: all that the figures depend on, JSON values.
        name: of the file in that folder, with a place for the header's digest.
    """
    # Figures of another version are refused, and nobody knows this file to delete it.
    named = {**header, "mezzotint": VERSION}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / name.format(digest)


def header_of(subject: Subject) -> dict[str, object]:
    """Everything that the times depend on: the machine, and the work."""
    denoiser = subject.denoiser
    config = {
        name: value
        for name, value in dict(getattr(denoiser, "config", {})).items()
        if not name.startswith("_")
    }
    # The work between the layers is part of the whole call.
    between = sorted(
        type(each).__name__ for each in getattr(denoiser, "attn_processors", {}).values()
    )
    runs = json.dumps([dict(subject.runs.layers), config, between], default=str).encode()
    return {
        "machine": Machine.here(subject.device).to_dict(),
        "denoiser": type(subject.denoiser).__name__,
        "batch": subject.work.batch,
        "work": hashlib.sha256(runs).hexdigest()[:16],
    }


def subject_of(pipe: DiffusionPipeline, work: Work) -> Subject:
    """The pipeline's denoiser, its call, and what runs in that.

    Raises:
        UsageError, ModelError: as `profile_pipeline`.
    """
    if work.batch < 1:
        raise UsageError(f"batch: {work.batch} is too small; use 1 or more")
    component, denoiser = find_denoiser(pipe)
    engine = engine_of(denoiser).name
    if engine != "torch":
        raise UsageError(
            f"the pipeline's {component} is compiled by {engine}, which hides its layers; "
            'profile with_engine(pipe, "torch")'
        )
    if packed_layers(denoiser):
        raise UsageError(
            f"the pipeline's {component} is quantized already; profile the original, which times "
            "its layers packed as well"
        )
    names = [layer.name for layer in inventory(denoiser) if layer.supported]
    if not names:
        raise ModelError(
            f"{type(denoiser).__name__} has no Linear or Conv2d layer to quantize; nothing of it "
            "gets faster by another format"
        )
    call = first_call(pipe, work.sampling, work.batch)
    runs = watch_runs(denoiser, names, call)
    return Subject(denoiser, call, runs, model_name(pipe), work)
