"""Calibration of a plan: tensors of its structures, static input ranges, moments of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from mezzotint.calibration.gram_matrices import MomentsOf, moments_together
from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.smoothing_norms import check_readers
from mezzotint.calibration.step_ranges import step_scales
from mezzotint.calibration.structure_tensors import observe_structures
from mezzotint.errors import PlanError
from mezzotint.models import Call, trace_calls
from mezzotint.plan import CalibrationSettings, Choice, Plan, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime import Calibration, InputRange, smoothing_norms


def needs_calibration(plan: Plan) -> bool:
    """True where a layer has a static range, or its structure or encoding needs calibration."""
    return any(
        choice.static
        or any(structure.calibrated for structure in choice.structures)
        or plan.encoding_of(name).needs_moments(bias=True)
        for name, choice in plan.quantized.items()
    )


def calibrated(
    denoiser: nn.Module, plan: Plan, calls: Sequence[Call], probes: Sequence[Call] = ()
) -> Calibration:
    """All that the plan's layers need calibrated, as seen in recorded calls.

    That is structures' tensors, static ranges, tables of scales for each timestep, and moments of
    inputs for encodings that look at them.

    Args:
        denoiser: the floating model.
        plan: its `calibration` gives the momentum of static ranges.
        calls: what is calibrated on.
        probes: further calls, of other prompts, in which structures such as constant tokens must
            find the same.

    Raises:
        PlanError: the calls do not allow a structure, such as a constant first token, or a norm
            cannot smooth as the plan says; the layer is named.
        CalibrationError: a layer of a static range, or of an encoding that looks at inputs, is
            never called, or sees NaN or infinity; or the calls are of other timesteps than layers
            have scales for.
        UsageError: layers have scales for timesteps, and the denoiser is called without one.
    """
    layers = plan.quantized
    structures = {name: choice.structures for name, choice in layers.items()}
    graph = None
    if smoothing_norms(plan):
        graph = trace_calls(denoiser, calls)
        check_readers(plan, graph)
    found = observe_structures(denoiser, structures, calls, probes=probes, graph=graph)
    for name, refusal in found.refused.items():
        raise PlanError(
            f"layer {name}: {refusal.kind}: {refusal.why}; leave {refusal.kind} out for it"
        )
    tensors = dict(found.tensors)
    stepped = {name: choice for name, choice in layers.items() if choice.steps}
    if stepped:
        for name, tables in step_scales(denoiser, stepped, calls, tensors).items():
            tensors[name] = {**tensors.get(name, {}), **tables}
    static = {name: choice for name, choice in layers.items() if choice.static}
    momentum = None if plan.calibration is None else plan.calibration.momentum
    ranges: dict[str, tuple[InputRange, ...]] = {}
    if static:
        clips = {name: plan.encoding_of(name).clip for name in static}
        ranges = input_ranges(
            denoiser, static, calls, momentum=momentum, clips=clips, tensors=tensors
        )
    return Calibration(ranges, tensors, moments=plan_moments(denoiser, plan, calls, tensors))


def plan_moments(
    denoiser: nn.Module, plan: Plan, calls: Sequence[Call], tensors: Mapping[str, Tensors]
) -> dict[str, tuple[InputMoments, ...]]:
    """Moments of the inputs of the layers whose encoding needs them.

    Args:
        denoiser: the floating model.
        plan: names layers and encodings.
        calls: recorded calls.
        tensors: layer → what its structures have calibrated.

    Raises:
        CalibrationError, PlanError: as `input_moments`.
    """
    (found,) = moments_of_plans(denoiser, [(plan, tensors)], calls)
    return found


def moments_of_plans(
    denoiser: nn.Module,
    plans: Sequence[tuple[Plan, Mapping[str, Tensors]]],
    calls: Sequence[Call],
) -> list[dict[str, tuple[InputMoments, ...]]]:
    """The moments of `plan_moments` for each of several plans, from the same runs.

    Args:
        denoiser: the floating model.
        plans: each with what the structures of its layers have calibrated.
        calls: recorded calls.

    Raises:
        CalibrationError, PlanError: as `input_moments`.
    """
    found: list[dict[str, tuple[InputMoments, ...]]] = [{} for _ in plans]
    for grams in (True, False):
        asked = [
            MomentsOf(needing_moments(denoiser, plan, grams=grams), each) for plan, each in plans
        ]
        if any(each.choices for each in asked):
            together = moments_together(denoiser, asked, calls, grams=grams)
            for own, more in zip(found, together, strict=True):
                own.update(more)
    return found


def needing_moments(denoiser: nn.Module, plan: Plan, *, grams: bool) -> dict[str, Choice]:
    """The layers of a plan whose encoding needs Gram matrices, or means alone."""
    return {
        name: choice
        for name, choice in plan.quantized.items()
        if (encoding := plan.encoding_of(name)).needs_grams == grams
        and encoding.needs_moments(bias=_has_bias(denoiser, name))
    }


def _has_bias(denoiser: nn.Module, name: str) -> bool:
    return getattr(denoiser.get_submodule(name), "bias", None) is not None


def with_settings(plan: Plan, settings: CalibrationSettings) -> Plan:
    """The plan, which says of its calibrated values that they were found like this.

    What makes no difference is left out: all of it where nothing is calibrated, and the momentum
    where no range is static.
    """
    if not needs_calibration(plan):
        return replace(plan, calibration=None)
    static = any(choice.static for choice in plan.quantized.values())
    return replace(plan, calibration=settings if static else replace(settings, momentum=None))
