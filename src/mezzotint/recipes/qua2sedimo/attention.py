"""Attention whose operands are rounded, simulated: published beside 8- and 6-bit inputs."""

from __future__ import annotations

from dataclasses import replace

from mezzotint.measuring import Noise, PlanChange, decibels
from mezzotint.plan import Plan, SimulatedAttention
from mezzotint.recipes.journaled_figures import Measuring


def with_simulated_attention(
    plan: Plan, attention: SimulatedAttention | None, measuring: Measuring
) -> Plan:
    """The plan whose attention is rounded, and which says what that adds to the output's noise.

    Weights and inputs are chosen without it.

    Args:
        plan: of the layers.
        attention: None leaves the plan as it is.
        measuring: packs and runs plans on the recorded calls.
    """
    if attention is None:
        return plan
    simulated = replace(plan, simulated_attention=attention)
    alone = Plan({}, simulated_attention=attention)
    changes = [PlanChange(each) for each in (alone, plan, simulated)]
    of_attention, of_layers, of_all = measuring.losses(changes, Noise(), "Simulating attention")
    summary = {
        "bits": attention.to_dict(),
        "noise_alone": of_attention,
        "noise_without": of_layers,
        "noise_with": of_all,
    }
    note = (
        f"attention is simulated, {attention}: rounded and multiplied in floating point; the "
        f"output's SQNR is {decibels(of_layers):.1f} dB without and {decibels(of_all):.1f} dB with "
        f"it, {decibels(of_attention):.1f} dB with it alone"
    )
    context = dict(plan.context)
    context["simulated_attention"] = summary
    context["notes"] = [*context.get("notes", ()), note]
    return replace(simulated, context=context)
