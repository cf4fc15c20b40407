"""Training on an embedded model, whose defaults it has."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.formats import RangeSearch
from mezzotint.models import Call, Sampling, find_denoiser, load_pipeline, record_calls
from mezzotint.plan import Choice, Encoding, Plan, uniform_plan
from mezzotint.runtime import Calibration
from mezzotint.training import Student, Training
from tests.training.students import output, packed, relative_difference, window_of


@pytest.fixture(scope="module")
def teacher() -> DiffusionPipeline:
    return load_pipeline("emoji-teacher")


@pytest.fixture(scope="module")
def calls(teacher: DiffusionPipeline) -> tuple[Call, ...]:
    """The first eleven of twenty steps, of two prompts."""
    prompts = Sampling(("owl, noto style", "red apple, flat style"))
    return record_calls(teacher, prompts, limit=11)


def norm(gradients: tuple[torch.Tensor | None, ...]) -> float:
    return float(nn.utils.get_total_norm([each for each in gradients if each is not None]))


def student_of(teacher: DiffusionPipeline, choice: Choice) -> Student:
    """Of all layers but the first, the last, and those of the timestep."""
    denoiser = find_denoiser(teacher)[1]
    names = uniform_plan(denoiser, weight_bits=4).quantized
    inner = [name for name in names if name.startswith(("down", "mid", "up"))]
    plan = Plan(dict.fromkeys(inner, choice), encoding=Encoding(RangeSearch(10, 0.4, 2.4)))
    return Student.of(denoiser, plan, Calibration(), Training(steps=1))


@pytest.fixture(scope="module")
def student(teacher: DiffusionPipeline) -> Student:
    """Of two bits, inputs of eight."""
    return student_of(teacher, Choice("uint2/channel", "uint8/token"))


@pytest.mark.parametrize("step", [6, 9])
def test_the_relation_loss_pulls_at_its_defaults_no_harder_than_the_main_one(
    student: Student, calls: tuple[Call, ...], step: int
):
    parameters = [*student.parameters().values()]
    pair = [*pairwise(calls)][step]
    window = window_of(student, pair, Training(steps=1), scale=4.5)
    of_main, of_features = (
        norm(torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True))
        for loss in (window.main(), window.features())
    )
    assert 0.05 < of_features / of_main < 1


def test_packed_it_computes_the_same_to_the_end_where_inputs_are_floating(
    teacher: DiffusionPipeline, calls: tuple[Call, ...]
):
    """Rounded ones, summed in another order, may come to lie beyond the border of their code."""
    student = student_of(teacher, Choice("uint2/channel"))
    found = packed(student)
    between = replace(calls[4], args=(calls[4].args[0], calls[4].args[1] - 17))
    for call in (calls[0], between, calls[10]):
        assert relative_difference(output(student, call), call.run(found)) < 1e-3
