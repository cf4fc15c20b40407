"""Students of tiny denoisers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.calibration import calibrated
from mezzotint.models import Call, Sampling, record_calls
from mezzotint.plan import Choice, Encoding, Plan, dumps
from mezzotint.runtime import Calibration, StepScales, packed_copy
from mezzotint.training import Student, Training
from mezzotint.training.relation import capturing, output_norm
from mezzotint.training.trajectories import Guidance, Trajectories
from mezzotint.training.window import Window

PROMPTS = ("an owl", "a cat", "a dog", "a fox", "a house")
IMAGES = Sampling(PROMPTS)
STEPS = StepScales(3)
EXACT = {"autocast": False}
"""Options of training that compute in float32, on every processor alike."""


def recorded(pipe: DiffusionPipeline) -> tuple[Call, ...]:
    return record_calls(pipe, Sampling(PROMPTS[:2]))


BLOCK = ("up_blocks.0.resnets.0.", "up_blocks.0.attentions.0.")
"""Layers of all kinds, and few enough to be quick."""


def layers_of(denoiser: nn.Module, where: tuple[str, ...] = BLOCK) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d)
    named = denoiser.named_modules()
    return [name for name, each in named if type(each) in kinds and name.startswith(where)]


def plan_of(
    denoiser: nn.Module,
    weight: str = "uint2/channel",
    activation: str = "uint4/step",
    encoding: Encoding | None = None,
    where: tuple[str, ...] = BLOCK,
) -> Plan:
    """The same choice for some layers, and the input layer of a U-Net at 8 bits."""
    structures = (STEPS,) if activation.endswith("step") else ()
    names = layers_of(denoiser, where)
    choices = {name: Choice(weight, activation, structures) for name in names}
    if hasattr(denoiser, "conv_in"):
        choices["conv_in"] = Choice("uint8/channel", "uint8/tensor")
    return Plan(choices, encoding=encoding or Encoding())


_CALIBRATIONS: dict[str, Calibration] = {}


def calibration_of(denoiser: nn.Module, plan: Plan, calls: Sequence[Call]) -> Calibration:
    """Of the one tiny denoiser, found once for each plan."""
    key = dumps(plan)
    if key not in _CALIBRATIONS:
        _CALIBRATIONS[key] = calibrated(denoiser, plan, calls)
    return _CALIBRATIONS[key]


def student_of(
    denoiser: nn.Module, calls: Sequence[Call], plan: Plan | None = None, **options: object
) -> Student:
    plan = plan or plan_of(denoiser)
    training = Training(**{"steps": 1, "rank": 4} | options)
    return Student.of(denoiser, plan, calibration_of(denoiser, plan, calls), training)


def packed(student: Student) -> nn.Module:
    """The denoiser packed as the student is trained now."""
    return packed_copy(student.denoiser, student.trained_plan, student.calibration())


@torch.no_grad()
def output(student: Student, call: Call) -> Tensor:
    with student.quantized() as denoiser:
        return call.run(denoiser)


def shaken(student: Student, amount: float = 0.3, seed: int = 1) -> Student:
    """The student with all its parameters changed at random, as much as training may."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in student.parameters().items():
            noise = torch.randn(parameter.shape, generator=generator)
            size = 0.02 if name.endswith((".up", ".down")) else amount
            parameter.add_(size * noise)
    return student


@torch.no_grad()
def layer_differences(student: Student, packed: nn.Module, call: Call) -> dict[str, float]:
    """Layer → difference of its output from the student's, both given the student's input."""
    given: dict[str, tuple[Tensor, Tensor]] = {}
    found: dict[str, float] = {}
    with ExitStack() as hooks:
        for name in student.layers:

            def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, name=name) -> None:
                given[name] = inputs[0], output

            hooks.enter_context(student.denoiser.get_submodule(name).register_forward_hook(keep))
        output(student, call)
    with ExitStack() as hooks:
        for name in student.layers:

            def give(*_: object, name=name) -> tuple[Tensor]:
                return (given[name][0],)

            def compare(_: nn.Module, inputs: object, output: Tensor, name=name) -> None:
                found[name] = relative_difference(output, given[name][1])

            layer = packed.get_submodule(name)
            hooks.enter_context(layer.register_forward_pre_hook(give))
            hooks.enter_context(layer.register_forward_hook(compare))
        call.run(packed)
    return found


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference over that of theirs."""
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


def trajectory_loss(student: Student, pipe: DiffusionPipeline, index: int = 1000) -> float:
    """Mean relative loss along a trajectory of the floating model that is never trained on."""
    guidance = Guidance.of(pipe, student.denoiser)
    losses = []

    def answer(call: Call) -> Tensor:
        y = call.run(student.denoiser)
        true, ours = (guidance.guided(each, 4) for each in (y, output(student, call)))
        losses.append(float((true - ours).square().sum() / true.square().sum()))
        return y

    Trajectories(pipe, student.denoiser, IMAGES, 4, seed=7).run(index, answer)
    return sum(losses) / len(losses)


def window_of(
    student: Student, calls: Sequence[Call], options: Training, scale: float = 3.0
) -> Window:
    """The losses of a student on recorded calls of two prompts, with gradients."""
    norm = output_norm(student.denoiser, calls[0])
    window, guided = Window(options), Guidance(scale).guided
    with student.holding_weights():
        for call in calls:
            with torch.no_grad(), capturing(norm) as theirs:
                y = call.run(student.denoiser)
            with student.quantized() as denoiser, capturing(norm) as ours:
                found = call.run(denoiser)
            window.add(guided(y, 2), guided(found, 2), (theirs, ours))
    return window
