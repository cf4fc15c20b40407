"""Students of plans whose norms smooth inputs: they learn and leave as with stored exponents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.models import Call, trace_graph
from mezzotint.plan import Plan
from mezzotint.recipes.smoothed_by_norms import smoothed_by_norms
from mezzotint.runtime import NormSmoothing, Smoothing, smoothing_norms
from mezzotint.training import Training, train
from tests.training.students import (
    EXACT,
    IMAGES,
    layers_of,
    output,
    packed,
    plan_of,
    relative_difference,
    shaken,
    student_of,
)

ATTENTION = ("up_blocks.0.attentions.0.",)
NORM = "up_blocks.0.attentions.0.transformer_blocks.0.norm1"


def plans(denoiser: nn.Module) -> Mapping[str, Plan]:
    """All inputs of a transformer block smoothed: by norms where they can, and by none."""
    plan = plan_of(denoiser, "uint3/channel", "float", where=ATTENTION)
    smoothed = {
        name: plan[name].with_structures(Smoothing()) for name in layers_of(denoiser, ATTENTION)
    }
    by_norms = smoothed_by_norms(smoothed, trace_graph(denoiser))
    return {
        "norms": replace(plan, choices={**plan.choices, **by_norms}),
        "stored": replace(plan, choices={**plan.choices, **smoothed}),
    }


@pytest.mark.parametrize("what", ["lora", "weights", "scales"])
def test_they_compute_and_leave_the_same_bit_for_bit(
    denoiser: nn.Module, calls: tuple[Call, ...], what: str
):
    made = plans(denoiser)
    assert NORM in smoothing_norms(made["norms"])
    students = [shaken(student_of(denoiser, calls, each, train=what)) for each in made.values()]
    assert torch.equal(*(output(each, calls[1]) for each in students))
    by_norms, stored = (packed(each) for each in students)
    assert torch.equal(calls[1].run(by_norms), calls[1].run(stored))
    assert relative_difference(calls[1].run(by_norms), output(students[0], calls[1])) < 1e-3
    learned = NORM + ".weight" in students[0].floating.learned
    assert learned == (what == "scales")
    changed = stored.get_parameter(f"{NORM}.weight") != denoiser.get_parameter(f"{NORM}.weight")
    assert bool(changed.all()) == learned


def test_updates_are_the_same(pipe: DiffusionPipeline, denoiser: nn.Module, calls):
    options = Training(steps=2, rank=4, train="scales", **EXACT)
    states: list[dict[str, Tensor]] = []
    for plan in plans(denoiser).values():
        student = student_of(denoiser, calls, plan, train="scales", steps=2, **EXACT)
        before = {name: each.detach().clone() for name, each in student.parameters().items()}
        train(student, pipe, IMAGES, options)
        states.append({name: each.detach() for name, each in student.parameters().items()})
        assert not torch.equal(states[-1][f"{NORM}.weight"], before[f"{NORM}.weight"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())


def test_structures_of_the_plans_differ(denoiser: nn.Module):
    kinds = {
        name: {type(each) for c in plan.quantized.values() for each in c.structures}
        for name, plan in plans(denoiser).items()
    }
    assert kinds == {"norms": {Smoothing, NormSmoothing}, "stored": {Smoothing}}
