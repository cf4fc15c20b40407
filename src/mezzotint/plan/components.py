"""Plans of several components of a pipeline, and the plan of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mezzotint.errors import PlanError
from mezzotint.plan.plan import Plan


def component_plan(plan: Plan, component: str) -> Plan:
    """The plan of one component, whose layers have the names that they have in there.

    Args:
        plan: of several.
        component: one of `plan.components`.
    """
    prefix = f"{component}."
    names = {name: name.removeprefix(prefix) for name in plan if name.startswith(prefix)}
    return replace(
        plan,
        choices={own: plan[name] for name, own in names.items()},
        reasons={own: plan.reasons[name] for name, own in names.items() if name in plan.reasons},
        encodings={
            own: plan.encodings[name] for name, own in names.items() if name in plan.encodings
        },
        components=(),
    )


def joined_plan(plans: Mapping[str, Plan]) -> Plan:
    """The plan of several components, of the plan of each.

    What was said of all layers is the first one's; of others' layers it is said one by one.

    Args:
        plans: by component.

    Raises:
        PlanError: one simulates attention, which is said of a whole denoiser.
    """
    for name, plan in plans.items():
        if plan.simulated_attention is not None:
            raise PlanError(
                f"{name}: simulated_attention: goes with a plan of one denoiser alone; leave it "
                "out, or take each component's plan by itself"
            )
    first = next(iter(plans.values()))
    return replace(
        first,
        choices={f"{name}.{layer}": plan[layer] for name, plan in plans.items() for layer in plan},
        reasons={
            f"{name}.{layer}": why
            for name, plan in plans.items()
            for layer, why in plan.reasons.items()
        },
        encodings={
            f"{name}.{layer}": plan.encoding_of(layer)
            for name, plan in plans.items()
            for layer in plan.quantized
        },
        components=tuple(plans),
    )
