"""Layers whose inputs have a width, a scale and a zero point for each timestep."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mezzotint.errors import FormatError
from mezzotint.formats import FLOAT, as_bits
from mezzotint.plan import Choice, Plan, dumps
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    StepScales,
    StepWidths,
    executions,
    module_bytes,
    pack_layer,
    packed_copy,
)
from mezzotint.runtime.structures.step_widths import within_widths
from tests.fuzzing import examples
from tests.runtime.layers import conv, linear, noise
from tests.runtime.stepped import ENCODING, SCALES, TIMESTEPS, Denoiser, batch, step_tables

BITS = (3, 2, 8)
ZERO_POINTS = (3, 1, 120)
TABLES = step_tables(zero_points=ZERO_POINTS)
CHOICE = Choice("int4/channel", "uint8/step", (StepWidths(3, BITS),))
MIXED = torch.tensor([900, 10, 480, 20])
EITHER = pytest.mark.parametrize(
    ("layer", "x"),
    [(linear(), noise(4, 5, 19)), (conv(padding=1), noise(4, 4, 6, 6))],
    ids=["linear", "conv2d"],
)


def packed(layer: nn.Module, choice: Choice = CHOICE, tensors: dict[str, Tensor] = TABLES):
    plan = Plan({"0": choice}, encoding=ENCODING)
    return pack_layer("0", layer, plan, Calibration(tensors={"0": tensors}))


def at(layer: nn.Module, x: Tensor, timestep: object) -> Tensor:
    with layer.reader.holding(timestep):
        return layer(x)


def denoiser() -> nn.Module:
    plan = Plan(dict.fromkeys(("conv", "linear"), CHOICE), encoding=ENCODING)
    floating = Denoiser().eval().requires_grad_(False)
    return packed_copy(floating, plan, Calibration(tensors=dict.fromkeys(plan.choices, TABLES)))


@EITHER
def test_each_timestep_is_computed_as_in_a_format_of_its_width(layer: nn.Module, x: Tensor):
    found = packed(layer)
    for t, bits, scale, zero in zip(TIMESTEPS, BITS, SCALES, ZERO_POINTS, strict=True):
        alone = Choice("int4/channel", f"uint{bits}/step", (StepScales(1),))
        expected = packed(layer, alone, step_tables((t,), (scale,), (zero,)))
        for size in (1.0, 30.0):  # within the limits, and beyond
            assert torch.equal(at(found, size * x, t), at(expected, size * x, t))


@EITHER
def test_a_batch_of_mixed_timesteps_is_that_of_single_calls(layer: nn.Module, x: Tensor):
    found = packed(layer)
    singles = [at(found, x[i : i + 1], MIXED[i]) for i in range(4)]
    assert torch.equal(at(found, x, MIXED), torch.cat(singles))


def test_samples_that_share_an_input_have_to_be_of_one_timestep():
    found, x = packed(linear()), 30 * noise(3, 19)
    assert torch.equal(at(found, x, torch.tensor([9, 10, 11, 12])), at(found, x, 10))


def test_products_are_of_8_bit_codes():
    assert {each.arithmetic for each in executions(denoiser())} == {"int8"}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_computes_the_same(backend: str):
    torch.compiler.reset()
    found, x = denoiser(), batch(4)
    compiled = torch.compile(found, backend=backend, fullgraph=True)
    for t in (torch.tensor([900]), torch.tensor([10]), MIXED):
        assert torch.equal(compiled(x, t), found(x, t))
    torch.compiler.reset()


@EITHER
def test_a_step_takes_ten_bytes(layer: nn.Module, x: Tensor):
    weights = packed(layer, Choice("int4/channel", FLOAT), {})
    assert module_bytes(packed(layer)) - module_bytes(weights) == 10 * len(TIMESTEPS)


@examples(200)
@given(
    bits=st.integers(2, 8),
    zero=st.integers(0, 255),
    scale=st.floats(2**-12, 2**7, width=32),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**16),
)
def test_codes_are_within_the_width_in_every_dtype(
    bits: int, zero: int, scale: float, dtype: torch.dtype, seed: int
):
    zero %= 2**bits
    x = (noise(64, seed=seed) * scale * 2**bits).to(dtype)
    each = torch.tensor([scale]), torch.tensor([float(zero)]), torch.tensor([float(bits)])
    found = within_widths(x, *each)
    assert found.dtype == dtype
    codes = (found.float() / scale).round() + zero
    if bits < 8:
        assert bool(((codes >= 0) & (codes < 2**bits)).all())
    plain = ((x.float() / scale).round() + zero).clamp(0, 2**bits - 1)
    assert torch.equal(codes.clamp(0, 2**bits - 1), plain)


def test_what_is_clamped_has_the_gradients_of_its_code():
    x = torch.tensor([-100.0, 0.1, 100.0], requires_grad=True)
    scale, zero = torch.tensor([0.5], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    within_widths(x, scale, zero, torch.tensor([2.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    assert scale.grad.tolist() == [-1.0 + 2.0]
    assert zero.grad.tolist() == [-1.0]


class TestPlans:
    def test_they_are_read_as_they_were_written(self):
        plan = Plan({"0": CHOICE})
        assert Plan.from_dict(json.loads(dumps(plan))) == plan
        (written,) = json.loads(dumps(plan))["layers"]["0"]["structures"]
        assert written == {"kind": "step_widths", "steps": 3, "bits": [3, 2, 8]}

    def test_labels_tell_the_range(self):
        assert StepWidths(3, BITS).label == "input scales of 3 steps, 2 to 8 bits"
        assert StepWidths(1, (4,)).label == "input scales of 1 steps, 4 bits"

    def test_constant_tokens_hold_them(self):
        choice = Choice("int4/channel", "uint8/step", (ConstantTokens(1), StepWidths(3, BITS)))
        assert choice.steps == 3
        with pytest.raises(FormatError, match="put step_widths last"):
            Choice("int4/channel", "uint8/step", (StepWidths(3, BITS), ConstantTokens(1)))

    @pytest.mark.parametrize(
        ("bits", "complaint"),
        [
            ((4, 4), "has 2 widths for 3 steps"),
            ((4, 1, 4), "bits are 1 at one step"),
            ((4, 9, 4), "bits are 9 at one step"),
            ((4, 4.0, 4), "bits are 4.0 at one step"),
            ((4, True, 4), "bits are True at one step"),
        ],
        ids=str,
    )
    def test_widths_that_make_no_sense_are_refused(self, bits: tuple, complaint: str):
        with pytest.raises(FormatError, match=f"step_widths: {complaint}"):
            StepWidths(3, bits)

    @pytest.mark.parametrize("activation", ["uint4/step", "int8/step"])
    def test_other_formats_are_refused(self, activation: str):
        with pytest.raises(FormatError, match="narrows the codes of 'uint8/step'"):
            Choice("int4/channel", activation, (StepWidths(3, BITS),))

    def test_stored_widths_are_those_of_the_plan(self):
        stored = torch.tensor([3, 3, 8], dtype=torch.uint8)
        with pytest.raises(FormatError, match="step_bits are not the widths that the plan has"):
            StepWidths(3, BITS).check_tensor("step_bits", stored)
        with pytest.raises(FormatError, match="step_scale holds values that are not positive"):
            StepWidths(1, (4,)).check_tensor("step_scale", as_bits(torch.zeros(1)))
