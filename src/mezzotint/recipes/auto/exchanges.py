"""Exchanges of bytes between the layers of a plan, predicted by probes around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mezzotint.allocation import find_exchanges, stacked_moves
from mezzotint.errors import ProbeError
from mezzotint.measuring import Projections
from mezzotint.plan import Choice
from mezzotint.recipes.auto.allocation import Found
from mezzotint.recipes.auto.held_out import gain
from mezzotint.recipes.auto.program import IntegerProgram
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.auto.sensitivity import Candidates

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Exchange:
    """A plan with some layers' weight formats exchanged.

    Attributes:
        choices: of all layers.
        changed: layers that have another format than before.
        predicted: relative change of the noise, by probes.
    """

    choices: Mapping[str, Choice]
    changed: tuple[str, ...]
    predicted: float


def neighbours(plan: Mapping[str, Choice], candidates: Candidates) -> dict[str, dict[str, Choice]]:
    """Layer → weight format → the candidate that differs from the plan in that alone."""
    return {
        name: {
            each.weight: each
            for each in candidates[name]
            if each.quantized
            and choice.quantized
            and each == replace(choice, weight=each.weight)
            and each != choice
        }
        for name, choice in plan.items()
    }


def exchange(
    program: IntegerProgram,
    plan: Mapping[str, Choice],
    others: Mapping[str, Mapping[str, Choice]],
    projections: Projections,
) -> Exchange:
    """Give some layers more, and others less, so that the predicted noise falls.

    Args:
        program: costs of all candidates, and limits that still hold.
        plan: around which `projections` are: those of its error, and of every change of a weight.
        others: what each layer may have instead, as `neighbours` gives it.
        projections: of every format in `others`.
    """
    root = np.sqrt(np.maximum(projections.energy, _TINY))
    resources = tuple(limit.resource for limit in program.limits)
    used = {each: program.used(plan, each) for each in resources}
    moves, keys = stacked_moves(
        {
            name: {weight: projections.weights[name][weight] / root for weight in each}
            for name, each in others.items()
        },
        {
            name: {
                weight: {
                    each: program.costs[name][choice][each] - program.costs[name][plan[name]][each]
                    for each in resources
                }
                for weight, choice in formats.items()
            }
            for name, formats in others.items()
        },
        resources,
    )
    room = np.array([float(each.maximum) - used[each.resource] for each in program.limits])
    found = find_exchanges(projections.residual / root, moves, room)
    changed = dict(keys[move] for move in found.moves)
    choices = {
        name: others[name][changed[name]] if name in changed else choice
        for name, choice in plan.items()
    }
    return Exchange(choices, tuple(changed), found.predicted)


def exchanged(search: Search, found: Found) -> Found:
    """The plan with exchanges of bytes between layers, where they help on held-out samples.

    They are predicted by probes of the other samples, around the plan as it would be stored: by as
    many as it took to find the plan.
    """
    held = search.samples.held
    if not held.enough:
        return found.noting("no exchanges: too few samples were recorded to hold some out")
    before = search.plan(found.choices)
    try:
        projections = search.projections(found.probes, held.others, before)
    except ProbeError as cause:
        return found.noting(f"no exchanges: {cause}")
    others = neighbours(found.choices, search.candidates)
    tried = exchange(search.program, found.choices, others, projections)
    summary = {
        "held_out": held.shown,
        "probes": len(projections),
        "tried": len(tried.changed),
        "kept": 0,
    }
    if tried.changed:
        was, now = search.sample_noises([before, search.plan(tried.choices)])
        fall = gain(was, now, held.samples)
        summary |= {
            "predicted_change": round(tried.predicted, 4),
            "held_out_gain": fall.mean,
            "standard_error": fall.error,
        }
        if fall.real:
            summary["kept"] = len(tried.changed)
            found = replace(found, choices=tried.choices)
    return replace(found, summary={**found.summary, "exchanges": summary})
