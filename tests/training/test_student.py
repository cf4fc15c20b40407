"""The student: it starts as the packed model, leaves as the packed model, and nothing stays."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.errors import PlanError, UsageError
from mezzotint.models import Call, load_pipeline
from mezzotint.pipeline import apply
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import (
    ConstantTokens,
    Smoothing,
    SplitInput,
    module_bytes,
    packed_copy,
    packed_layers,
    stored_tensors,
)
from mezzotint.training import Student, Training
from mezzotint.training.learned_grid import LearnedGrid
from tests.training.students import (
    STEPS,
    calibration_of,
    layer_differences,
    output,
    packed,
    plan_of,
    relative_difference,
    shaken,
    student_of,
)

TOLERANCE = 1e-3
"""Of fake-quantized and packed outputs, in shares of their root mean square."""

CODES_APART = 0.1
"""The same, where sums in another order may send an input to the neighbouring code."""

MIXED = "mixed/kmeans1:{0},uint2:{1},uint3:{0}"


def mixed_plan(denoiser: nn.Module) -> Plan:
    """A tenth of each layer's channels at one bit, another at three."""
    plan = plan_of(denoiser)
    choices = dict(plan.choices)
    for name, choice in choices.items():
        out = denoiser.get_submodule(name).weight.shape[0]
        if choice.weight == "uint2/channel" and out >= 10:
            weight = MIXED.format(out // 10, out - 2 * (out // 10))
            choices[name] = Choice(weight, choice.activation, choice.structures)
    return replace(plan, choices=choices)


def structured_plan(denoiser: nn.Module) -> Plan:
    """Constant tokens, split inputs and smoothing, each with scales per step within."""
    plan = plan_of(denoiser)
    choices = dict(plan.choices)
    for name in choices:
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            choices[name] = Choice("uint3/channel", "uint4/step", (ConstantTokens(1), STEPS))
        elif name.endswith("conv_shortcut"):
            other = (("second", "kmeans2/channel"),)
            choices[name] = Choice("uint3/channel", "uint4/step", (SplitInput(16), STEPS), other)
        elif name.endswith("conv1"):
            choices[name] = Choice("uint3/channel", "uint4/step", (Smoothing(), STEPS))
    return replace(plan, choices=choices)


PLANS = {
    "per step": plan_of,
    "mixed": mixed_plan,
    "structures": structured_plan,
    "static": lambda denoiser: plan_of(denoiser, "int3/channel", "uint8/tensor"),
    "dynamic": lambda denoiser: plan_of(denoiser, "uint3/group8", "int8/token"),
    "floating inputs": lambda denoiser: plan_of(denoiser, "lut3/channel", "float"),
    "feedback": lambda denoiser: plan_of(
        denoiser,
        "int3/channel",
        "int8/token",
        encoding=Encoding(rounding="feedback", bias_correction=True),
    ),
}
EVERY_PLAN = pytest.mark.parametrize("plan", PLANS.values(), ids=list(PLANS))


class TestTeacher:
    def test_the_student_switched_off_is_the_floating_model_bit_for_bit(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        student = shaken(student_of(denoiser, calls))
        output(student, calls[0])
        with student.quantized(on=False) as teacher:
            assert torch.equal(calls[0].run(teacher), calls[0].output)

    def test_nothing_stays_on_the_denoiser(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        before = {
            name: (set(vars(module)), len(module._forward_pre_hooks), len(module._forward_hooks))
            for name, module in denoiser.named_modules()
        }
        trained = [each.requires_grad for each in denoiser.parameters()]
        student = student_of(denoiser, calls, train="scales")
        output(student, calls[0])
        after = {
            name: (set(vars(module)), len(module._forward_pre_hooks), len(module._forward_hooks))
            for name, module in denoiser.named_modules()
        }
        assert after == before
        assert [each.requires_grad for each in denoiser.parameters()] == trained

    def test_the_floating_weights_are_held_once(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        layer = student_of(denoiser, calls).layers["up_blocks.0.resnets.0.conv1"]
        held = layer.weight.parametrizations.weight.original
        assert held.data_ptr() == layer.layer.weight.data_ptr()

    def test_it_gets_no_gradients(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        student = student_of(denoiser, calls)
        with student.quantized() as quantized:
            calls[0].run(quantized).square().sum().backward()
        assert all(parameter.grad is None for parameter in denoiser.parameters())


class TestPacking:
    @EVERY_PLAN
    @pytest.mark.parametrize("train", ["lora", "weights", "scales"])
    def test_it_starts_as_the_packed_model(
        self, denoiser: nn.Module, calls: tuple[Call, ...], plan: object, train: str
    ):
        made = plan(denoiser)
        calibration = calibration_of(denoiser, made, calls)
        student = Student.of(denoiser, made, calibration, Training(steps=1, train=train))
        start = packed_copy(denoiser, made, calibration)
        differences = layer_differences(student, start, calls[1])
        assert len(differences) == len(made.quantized)
        assert max(differences.values()) < TOLERANCE

    @EVERY_PLAN
    @pytest.mark.parametrize("train", ["lora", "weights", "scales"])
    @pytest.mark.parametrize("timestep", [999, 333, 500], ids=["first", "last", "between"])
    def test_it_leaves_as_it_was_trained(
        self,
        denoiser: nn.Module,
        calls: tuple[Call, ...],
        plan: object,
        train: str,
        timestep: int,
    ):
        made = plan(denoiser)
        student = shaken(student_of(denoiser, calls, made, train=train))
        call = replace(calls[1], args=(calls[1].args[0], torch.tensor(timestep)))
        trained, ours = packed(student), output(student, call)
        assert max(layer_differences(student, trained, call).values()) < TOLERANCE
        apart = (
            TOLERANCE if made["up_blocks.0.resnets.0.conv1"].activation == "float" else CODES_APART
        )
        assert relative_difference(ours, call.run(trained)) < apart
        assert relative_difference(ours, call.run(denoiser)) > CODES_APART

    @EVERY_PLAN
    def test_stored_bytes_are_those_of_the_plan(
        self, denoiser: nn.Module, calls: tuple[Call, ...], plan: object
    ):
        made = plan(denoiser)
        trained = packed(shaken(student_of(denoiser, calls, made)))
        for name, layer in packed_layers(trained).items():
            conv = denoiser.get_submodule(name)
            groups = getattr(conv, "groups", 1)
            stored = stored_tensors(made[name], tuple(conv.weight.shape), groups).values()
            bias = 0 if layer.bias is None else layer.bias.nbytes
            assert module_bytes(layer) == sum(spec.nbytes for spec in stored) + bias

    @pytest.mark.parametrize("plan", [plan_of, mixed_plan], ids=["uniform", "mixed"])
    def test_whatever_the_zero_points_there_are_no_more_values_than_codes(
        self, denoiser: nn.Module, calls: tuple[Call, ...], plan: object
    ):
        student = student_of(denoiser, calls, plan(denoiser))
        with torch.no_grad():
            for name, parameter in student.parameters().items():
                if name.endswith("zero_point"):
                    parameter.copy_(torch.linspace(-3.3, 9.7, parameter.numel()).view_as(parameter))
        for layer in student.layers.values():
            bits = 3 if layer.choice.weight.startswith("mixed") else 2
            for values in layer.rounded_weights() if layer.grids else ():
                assert all(len(row.unique()) <= 2**bits for row in values.flatten(1))
        packed(student)  # what lies on no grid is refused

    def test_channels_keep_their_widths(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        student = student_of(denoiser, calls, mixed_plan(denoiser), train="weights")
        orders = {
            name: layer.grids[0].start.order
            for name, layer in student.layers.items()
            if layer.grids and layer.choice.weight.startswith("mixed")
        }
        trained = packed(shaken(student, 5.0))
        for name, order in orders.items():
            stored = packed_layers(trained)[name].parts[0].packed_weight.order
            assert torch.equal(stored, order)

    def test_weights_of_many_bits_stay_as_the_plan_rounds_them(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        student = shaken(student_of(denoiser, calls))
        assert "conv_in" not in student.trained_plan.trained
        assert not [name for name in student.parameters() if name.startswith("conv_in.")]
        before = packed_copy(denoiser, student.plan, calibration_of(denoiser, student.plan, calls))
        ours, theirs = packed(student).conv_in, before.conv_in
        assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))

    def test_inputs_of_many_bits_are_trained_with_their_weights(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        student = student_of(denoiser, calls, plan_of(denoiser, "uint4/channel", "uint8/step"))
        trained = {name for name in student.parameters() if ".inputs." in name}
        assert "up_blocks.0.attentions.0.proj_in.inputs.0.log_scale" in trained
        assert not [name for name in trained if name.startswith("conv_in.")]

    def test_weights_are_trained_in_one_layout_whatever_that_of_the_model(
        self, denoiser: nn.Module, calls: tuple[Call, ...]
    ):
        """Moments of the optimizer are read back contiguous, and fused with the parameter."""
        denoiser.to(memory_format=torch.channels_last)
        student = student_of(denoiser, calls, train="weights")
        assert all(parameter.is_contiguous() for parameter in student.parameters().values())


class TestScales:
    def test_every_weight_keeps_its_code(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        plan = plan_of(denoiser, "uint3/channel", "int8/token")
        student = student_of(denoiser, calls, plan, train="scales")
        before, after = packed(student), packed(shaken(student))
        for name, layer in packed_layers(before).items():
            other = packed_layers(after)[name]
            assert torch.equal(layer.weight_codes, other.weight_codes)
            assert not torch.equal(layer.weight_scale, other.weight_scale)

    def test_biases_and_norms_are_saved_and_loaded(
        self, pipe: DiffusionPipeline, denoiser: nn.Module, calls: tuple[Call, ...], tmp_path: Path
    ):
        student = shaken(student_of(denoiser, calls, train="scales"), 0.1)
        result = apply(pipe, student.trained_plan, student.calibration())
        loaded = load_pipeline(result.save(tmp_path / "tuned")).unet
        for name in ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.bias", "conv_in.bias"):
            assert torch.equal(loaded.get_parameter(name), student.floating.learned[name])
        assert torch.equal(calls[0].run(loaded), calls[0].run(result.denoiser))
        assert relative_difference(calls[0].run(loaded), output(student, calls[0])) < TOLERANCE

    def test_no_bytes_are_added(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        plan = plan_of(denoiser)
        before = packed_copy(denoiser, plan, calibration_of(denoiser, plan, calls))
        after = packed(shaken(student_of(denoiser, calls, plan, train="scales")))
        assert module_bytes(after) == module_bytes(before)

    def test_the_original_keeps_its_own(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        before = copy.deepcopy(denoiser.state_dict())
        packed(shaken(student_of(denoiser, calls, train="scales")))
        assert all(torch.equal(each, before[name]) for name, each in denoiser.state_dict().items())


class TestErrors:
    def test_nothing_to_train(self, denoiser: nn.Module, calls: tuple[Call, ...]):
        plan = plan_of(denoiser, "int8/channel", "int8/token")
        with pytest.raises(UsageError, match="train: the plan leaves nothing to train"):
            student_of(denoiser, calls, plan)

    def test_a_plan_of_another_model(self, denoiser: nn.Module):
        plan = Plan({"nowhere": Choice("uint2/channel")})
        with pytest.raises(PlanError, match="names layer nowhere"):
            Student.of(denoiser, plan, calibration_of(denoiser, Plan({}), ()), Training(steps=1))


def test_a_grid_learns_the_logarithm_of_its_scale(denoiser: nn.Module, calls: tuple[Call, ...]):
    grid = student_of(denoiser, calls).layers["up_blocks.0.resnets.0.conv1"].grids[0]
    assert isinstance(grid, LearnedGrid)
    assert torch.equal(grid.learned["log_scale"], grid.start.scale.log())
    with torch.no_grad():
        grid.learned["log_scale"].sub_(50)
    assert bool((grid.grid.parameters["scale"] > 0).all())
