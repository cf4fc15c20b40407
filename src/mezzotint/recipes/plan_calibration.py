"""Calibration of a plan made before, by making its calls again."""

from __future__ import annotations

from dataclasses import replace

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.calibration import calibrated, with_settings
from mezzotint.errors import CalibrationError
from mezzotint.models import evaluating, on_device, record_calls
from mezzotint.plan import CalibrationSettings, CallSelection, Plan, Sampling
from mezzotint.recipes.default_prompts import CALIBRATION_COUNT, default_sampling, usual_count
from mezzotint.recipes.found_structures import probing_calls
from mezzotint.runtime import Calibration


def calibrate_plan(
    pipe: DiffusionPipeline, denoiser: nn.Module, plan: Plan, sampling: Sampling | None = None
) -> tuple[Plan, Calibration]:
    """Run the pipeline as the plan says, or on `sampling`; find constant outputs and ranges.

    Returns the plan, which says how that was done, and what was found. A plan that does not say
    is calibrated on the pipeline's default prompts. Where layers have a scale for each step, the
    calls that are kept are of all steps.

    Raises:
        CalibrationError: the plan's calls cannot be made again.
        PlanError: the calls do not show a first token to be constant; the layer is named.
    """
    before = plan.calibration or CalibrationSettings()
    chosen = sampling or before.sampling
    if chosen is None and before.calls is not None:
        raise CalibrationError(
            f"the plan was calibrated on {before.calls} calls of the denoiser which it does not "
            "hold; give prompts to calibrate it anew"
        )
    chosen = chosen or default_sampling(pipe, _prompts(pipe, plan))
    selection = _selection(plan)
    with evaluating(denoiser):
        calls = on_device(record_calls(pipe, chosen, selection, denoiser=denoiser), denoiser)
    again = sampling is None and selection == before.selection
    if again and before.calls not in (None, len(calls)):
        raise CalibrationError(
            f"the plan was calibrated on {before.calls} calls of the denoiser; here the same "
            f"prompts make {len(calls)}, since the pipeline's steps or guidance are others; give "
            "prompts to calibrate it anew"
        )
    settings = replace(before, sampling=chosen, calls=len(calls), selection=selection)
    plan = with_settings(plan, settings)
    with evaluating(denoiser):
        return plan, calibrated(denoiser, plan, calls, probing_calls(pipe, denoiser, chosen))


def _selection(plan: Plan) -> CallSelection | None:
    """The calls to keep: those that the plan says, and one at each step that has scales."""
    selection = None if plan.calibration is None else plan.calibration.selection
    if plan.calibration is None and plan.steps:
        selection = CallSelection()
    return None if selection is None else selection.covering(plan.steps)


def _prompts(pipe: DiffusionPipeline, plan: Plan) -> int:
    """The number of them for a plan that does not say."""
    encodings = map(plan.encoding_of, plan.quantized)
    looks = any(encoding.needs_moments(bias=True) for encoding in encodings)
    return usual_count(pipe) if looks else CALIBRATION_COUNT
