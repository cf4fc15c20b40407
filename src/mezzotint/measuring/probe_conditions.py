"""A digest of all that projections depend on, beside the model and what is calibrated."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

from mezzotint.formats import FLOAT
from mezzotint.measuring.change import PlanChange
from mezzotint.measuring.identity import calls_digest
from mezzotint.measuring.input_edge import InputCandidate
from mezzotint.measuring.probed_layer import LayerCandidates
from mezzotint.measuring.step_table import StepTable
from mezzotint.models import Call
from mezzotint.plan import Plan
from mezzotint.runtime import InputRange


def digest_of(
    candidates: Mapping[str, LayerCandidates],
    around: list[object] | None,
    encoding: str,
    calls: Sequence[Call],
) -> str:
    """A hash that is part of the keys of a journal's probes.

    Args:
        candidates: layer → changes that are asked for.
        around: `described_plan` of the base model; None for the floating one.
        encoding: how candidate weights are made.
        calls: recorded, with their outputs.
    """
    asked = {
        name: [
            list(each.weights),
            {key: _described(one) for key, one in each.inputs.items()},
            [structure.to_dict() for structure in each.structures],
            *({key: one.to_dict()} for key, one in each.variants.items()),
        ]
        for name, each in candidates.items()
    }
    content = json.dumps(["float32", asked, around, encoding, calls_digest(calls)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def described_plan(
    plan: Plan,
    ranges: Mapping[str, Sequence[InputRange]],
    tables: Mapping[str, Sequence[StepTable]],
) -> list[object]:
    """A plan around which is probed, as JSON values.

    Args:
        plan: of the base model.
        ranges: layer → of its quantizers; those of static inputs count.
        tables: layer → scales for each timestep, of those that have some.
    """
    return [
        PlanChange(plan).name,
        {
            name: [dataclasses.astuple(each) for each in own]
            for name, own in ranges.items()
            if name in plan.choices and plan[name].static
        },
        {name: [dataclasses.astuple(each) for each in own] for name, own in tables.items()},
    ]


def _described(candidate: InputCandidate) -> list[object]:
    name = FLOAT if candidate.format is None else candidate.format.name
    ranges = [dataclasses.astuple(each) for each in candidate.ranges]
    steps = [dataclasses.astuple(each) for each in candidate.steps]
    return [name, ranges, *candidate.exponents, *([steps] if steps else ())]
