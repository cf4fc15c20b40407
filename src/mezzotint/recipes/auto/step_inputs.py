"""Inputs with a scale for each timestep: the calls that tell them, and their tables."""

from __future__ import annotations

from mezzotint.calibration import step_scales
from mezzotint.calibration.step_ranges import calls_by_timestep
from mezzotint.models import default_steps
from mezzotint.plan import Budget, CallSelection, Structure
from mezzotint.recipes.auto.candidates import input_formats
from mezzotint.recipes.auto.names import is_per_step
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.sensitivity import Candidates
from mezzotint.recipes.job import Job
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration


def calls_to_record(job: Job, options: Auto) -> CallSelection | None:
    """The calls of the pipeline's run to keep: of every step, where inputs have a scale for each.

    None for all of them.
    """
    selection = selected_calls(options.calls)
    if selection is None or job.pipe is None or not may_be_per_step(job.budget, options):
        return selection
    steps = None if job.sampling is None else job.sampling.steps
    return selection.covering(default_steps(job.pipe) if steps is None else steps)


def may_be_per_step(budget: Budget, options: Auto) -> bool:
    """True where inputs may have a scale for each timestep."""
    return any(map(is_per_step, input_formats(budget, options)))


def recorded_steps(study: Study) -> int:
    """Timesteps that the recorded calls are of.

    Raises:
        UsageError: the denoiser is called without one.
        CalibrationError: a call is given none.
    """
    return len(calls_by_timestep(study.job.denoiser, study.calls))


def with_step_tables(
    study: Study, candidates: Candidates, found: Calibration
) -> dict[tuple[Structure, ...], Calibration]:
    """Structures with scales for each timestep → what is calibrated of layers that have them.

    Args:
        study: its calls tell the scales.
        candidates: by layer, all in one kind of structures but for the scales of inputs.
        found: what is calibrated of those structures.

    Raises:
        CalibrationError: a layer is not called at a timestep, or sees NaN; both are named.
    """
    stepped = {name: each for name, choices in candidates.items() for each in choices if each.steps}
    if not stepped:
        return {}
    tables = step_scales(study.job.denoiser, stepped, study.calls, found.tensors)
    tensors = {name: {**found.tensors.get(name, {}), **tables[name]} for name in stepped}
    known = Calibration(tensors=tensors, moments=found.moments)
    return dict.fromkeys((choice.structures for choice in stepped.values()), known)
