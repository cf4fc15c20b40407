"""Predicted latency of a plan, from the profile of its model."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError
from torch import nn

from mezzotint.errors import PlanError, ProfileError
from mezzotint.models import inventory
from mezzotint.plan import Choice, LayerShape, Plan
from mezzotint.profiling.profile import Profile
from mezzotint.runtime import weights_by_format
from mezzotint.runtime.cpu.machine import Machine

LATENCY = "latency"
"""Field of a plan's context."""


def predict(profile: Profile, plan: Plan) -> float:
    """Milliseconds of one denoiser call under `plan`: its layers' figures, and the rest.

    Layers that the plan does not name stay floating.

    Raises:
        ProfileError: a layer or its choice was not measured.
        PlanError: a layer cannot have one of its structures.
    """
    for name in plan.quantized:
        if name not in profile.layers:
            raise ProfileError(
                f"the profile of {profile.model or profile.denoiser} has no layer {name}; was it "
                "made for another model?"
            )
    layers = (
        milliseconds(profile, name, plan.choices.get(name, Choice())) for name in profile.layers
    )
    return profile.rest + math.fsum(layers)


def milliseconds(profile: Profile, layer: str, choice: Choice) -> float:
    """One layer's share of a denoiser call.

    A layer of structures counts as one of its formats without them; of several formats, each by
    its share of the weights.

    Raises:
        ProfileError: it was not measured under this choice.
        PlanError: it cannot have one of the structures.
    """
    measured = profile.layers[layer]
    counts = weights_by_format(choice, LayerShape(measured.weight_shape))
    for each in counts:
        if each not in measured.figures:
            raise ProfileError(
                f"layer {layer}: the profile has no figure for {each}; profile the model again "
                "with that format"
            )
    total = sum(counts.values())
    return math.fsum(n / total * measured.figures[each].milliseconds for each, n in counts.items())


def check_profile(profile: Profile, denoiser: nn.Module, source: str = "profile") -> None:
    """Check that the profile is of this denoiser, where it is now, on this machine.

    Another model of equal layers, such as a fine-tune, counts as the same: it takes as long.

    Raises:
        ProfileError: it is not; says in what they differ.
    """
    device = next(denoiser.parameters()).device
    if differences := Machine.here(device).differences(profile.machine):
        raise ProfileError(
            f"{source}: was measured on another machine or under other conditions ({differences}); "
            "profile the model again here"
        )
    found = {layer.name: layer.weight_shape for layer in inventory(denoiser) if layer.supported}
    kind = type(denoiser).__name__
    other = f"{source}: is of another model ({profile.model or profile.denoiser})"
    for name in dict.fromkeys([*found, *profile.layers]):
        if name not in profile.layers:
            raise ProfileError(f"{other}: it has no layer {name}, which this {kind} has")
        if name not in found:
            raise ProfileError(f"{other}: this {kind} has no layer {name}")
        there, here = profile.layers[name], denoiser.get_submodule(name).get_parameter("weight")
        dtype = str(here.dtype).removeprefix("torch.")
        if (there.weight_shape, there.dtype) != (found[name], dtype):
            raise ProfileError(
                f"{other}: layer {name} is {there.dtype} {list(there.weight_shape)} there and "
                f"{dtype} {list(found[name])} here"
            )


class PlanLatency(BaseModel):
    """Latency in a plan's context.

    Attributes:
        predicted_ms: one denoiser call under the plan.
        float_ms: one call of the floating denoiser.
        limit_ms: what was asked for.
        batch: images per call.
        machine: key of the machine that the figures are from.
        processor: its processor.
        device: what it computed on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    predicted_ms: float
    float_ms: PositiveFloat
    limit_ms: float
    batch: int
    machine: str
    processor: str
    device: str


def latency_context(profile: Profile, plan: Plan, limit_ms: float) -> dict[str, Any]:
    """Latency for a plan's context, as JSON values."""
    return PlanLatency(
        predicted_ms=predict(profile, plan),
        float_ms=profile.milliseconds,
        limit_ms=limit_ms,
        batch=profile.batch,
        machine=profile.machine.key,
        processor=profile.machine.processor,
        device=profile.machine.device,
    ).model_dump()


def plan_latency(plan: Plan) -> PlanLatency | None:
    """Latency in the plan's context, if it has one.

    Raises:
        PlanError: the field is malformed.
    """
    if LATENCY not in plan.context:
        return None
    try:
        return PlanLatency.model_validate(plan.context[LATENCY])
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(["context", LATENCY, *map(str, first["loc"])])
        raise PlanError(f"plan: field {where}: {first['msg']}; remove {LATENCY}") from cause
