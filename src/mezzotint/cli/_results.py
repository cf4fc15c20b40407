"""Results of verbs that write a quantized pipeline, and the work that is kept beside them."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mezzotint._printable import printable
from mezzotint.cli._output import check_free, show
from mezzotint.errors import MezzotintError, UsageError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from mezzotint.evaluation import CallTimes
    from mezzotint.pipeline import Result
    from mezzotint.plan import Budget, Sampling


TIMING = "Timing the result"
"""Label of the progress of that stage."""

TIMED_CALLS = 9
"""Calls that it takes: one is recorded, and four of each denoiser are made, three of them timed."""


def begun(output: Path, resume: bool) -> Path | None:
    """The journal of an interrupted run that is to be gone on with."""
    journal = _journal_path(output)
    return journal if resume and journal.exists() else None


def _journal_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.journal.jsonl")


@contextmanager
def kept_work(output: Path, *, resume: bool, force: bool) -> Iterator[Path]:
    """The file beside `output` that holds finished measurements until all is done.

    After an error it is kept where there are any. Beside it is the folder of a training's states.

    Args:
        output: of the result.
        resume: go on with what is there.
        force: begin anew, even if a training is there.

    Raises:
        UsageError: a training is there, and neither is said; or another run is at it.
    """
    from mezzotint._journal import Record, discard_journal
    from mezzotint.recipes.job import training_folder
    from mezzotint.training import discard_training, has_state

    journal = _journal_path(output)
    training = training_folder(journal)
    if not resume:
        if has_state(training) and not force:
            raise UsageError(
                f"{training}: holds a training that was interrupted; add --resume to go on with "
                "it, or --force to begin anew"
            )
        discard_journal(journal)
        discard_training(training)
    began = not journal.exists()
    try:
        yield journal
    except MezzotintError:
        if began and journal.exists() and not Record.read(journal).entries:
            journal.unlink()
        raise
    except KeyboardInterrupt as interruption:
        kept = {"measurements": journal, "states of the training": training}
        found = {what: path for what, path in kept.items() if path.exists()}
        for what, path in found.items():
            interruption.add_note(f"{what} are kept in {path}")
        if found:
            interruption.add_note("repeat the command with --resume to go on")
        raise
    # The journal last: without it, what is left of the work would be left for good.
    discard_training(training)
    journal.unlink(missing_ok=True)


def save(result: Result, output: Path, *, force: bool) -> None:
    """Write the result, unless something has appeared at `output` since the work began.

    Raises:
        UsageError: it has; measurements are kept.
    """
    check_free(output, force=force)
    result.save(output)


def timed(
    pipe: DiffusionPipeline, result: Result, *, every_engine: bool = False
) -> CallTimes | None:
    """Time of one denoiser call of a result beside the floating one's.

    None where the pipeline cannot be run for it, or no denoiser is packed.

    Args:
        pipe: floating.
        result: packed, and saved already.
        every_engine: time those that are installed, not torch alone.
    """
    from mezzotint._progress import stage
    from mezzotint.checkpoint import packed_plans
    from mezzotint.models import find_denoisers
    from mezzotint.speed import speed

    if packed_plans(result.pipeline).keys().isdisjoint(find_denoisers(pipe)):
        return None
    try:
        with stage(TIMING):
            return speed(result.pipeline, original=pipe, every_engine=every_engine)
    except MezzotintError as cause:
        typer.echo(printable(f"note: the result was not timed: {cause}"), err=True)
        return None


def expected_speed(pipe: DiffusionPipeline) -> CallTimes | None:
    """Times of one denoiser call of a loaded pipeline beside the floating one's.

    None where no denoiser is packed, or it cannot be run.
    """
    from mezzotint.models import find_denoisers
    from mezzotint.runtime import packed_layers
    from mezzotint.speed import speed

    if not any(packed_layers(part) for part in find_denoisers(pipe).values()):
        return None
    try:
        return speed(pipe)
    except MezzotintError as cause:
        typer.echo(printable(f"note: how fast it is here is not known: {cause}"), err=True)
        return None


def foretell_speed(
    pipe: DiffusionPipeline, budget: Budget, sampling: Sampling, *, told: bool
) -> None:
    """Say whether such a result will be faster or slower here, before it is searched for.

    Nothing is said where that cannot be told: of several denoisers, of a budget without bits, or
    with a latency, which is kept.

    Args:
        pipe: floating.
        budget: of the plan.
        sampling: whose first image's call is timed.
        told: False for weights that stay on disk, which no time is told of, for components that
            may not be denoisers, and for work that is gone on with, which was told before.
    """
    from mezzotint.profiling import Work
    from mezzotint.speed import foretold_speed

    if not told or budget.latency is not None:
        return
    try:
        found = foretold_speed(pipe, budget, Work(sampling=sampling))
    except MezzotintError:  # what is wrong is told by the search, which needs the same
        return
    if found is not None:
        typer.echo(printable(f"expected: {found.verdict}"), err=True)


def report(result: Result, output: Path, as_json: bool, times: CallTimes | None = None) -> None:
    """Print what was made, how it is computed, and how long a call takes."""
    from mezzotint.cli.tables import (
        bits_table,
        floating_table,
        kernels_table,
        latency_table,
        training_table,
    )
    from mezzotint.runtime import executions, module_bytes

    plan, packed, size = result.plan, executions(result.denoiser), module_bytes(result.denoiser)
    value: dict[str, Any] = {
        "output": str(output),
        "denoiser_bytes": size,
        "plan": plan.to_dict(),
        "execution": [each.to_dict() for each in packed],
    }
    if times is not None:
        value["call_times"] = times.to_dict()
    if result.training is not None:
        value["training"] = result.training.to_dict()
    floating = floating_table(plan)
    tables = [plan.summary(), *([floating] if floating.row_count else []), kernels_table(packed)]
    tables += [*bits_table(plan), *latency_table(plan)]
    if "training" in value:
        tables.append(training_table(value["training"]))
    show(value, tables, as_json=as_json)
    if not as_json:
        for lora in plan.context.get("loras", ()):
            typer.echo(printable(f"merged: {lora['file']}, weight {lora['weight']:g}"))
        for note in plan.context.get("notes", ()):
            typer.echo(printable(f"note: {note}"))
        for line in () if times is None else times.lines:
            typer.echo(printable(line))
        subject = "quantized components take" if plan.components else "denoiser takes"
        typer.echo(f"saved to {output}; the {subject} {size:,} bytes")
