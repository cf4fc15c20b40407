"""Calibration of a plan: tensors of its structures, static input ranges, moments of inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from mezzotint.calibration.gram_matrices import input_moments
from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.smoothing_norms import check_readers
from mezzotint.calibration.step_ranges import step_scales
from mezzotint.calibration.structure_tensors import observe_structures
from mezzotint.errors import PlanError
from mezzotint.models import Call, trace_calls
from mezzotint.plan import CalibrationSettings, Plan, Tensors
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
    needy = {
        name: choice
        for name, choice in plan.quantized.items()
        if plan.encoding_of(name).needs_moments(bias=_has_bias(denoiser, name))
    }
    found: dict[str, tuple[InputMoments, ...]] = {}
    for grams in (True, False):
        of_kind = {n: c for n, c in needy.items() if plan.encoding_of(n).needs_grams == grams}
        if of_kind:
            found |= input_moments(denoiser, of_kind, calls, grams=grams, tensors=tensors)
    return found


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
