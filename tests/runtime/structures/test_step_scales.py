"""Layers whose inputs have a scale and zero point for each timestep."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mezzotint.errors import FormatError, PlanError, UsageError
from mezzotint.formats import FLOAT, as_bits, parse_activation_format
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import (
    Calibration,
    ConstantTokens,
    InputQuantizer,
    InputRange,
    QuantLayer,
    SplitInput,
    StepScales,
    TimestepReader,
    executions,
    module_bytes,
    pack_layer,
    packed_copy,
)
from mezzotint.runtime.operands import GivenScales, Linear
from tests.runtime.layers import conv, linear, noise
from tests.runtime.stepped import (
    ENCODING,
    SCALES,
    STEPS,
    TIMESTEPS,
    ZERO_POINTS,
    Denoiser,
    batch,
    choice,
    packed_denoiser,
    step_tables,
)
from tests.runtime.structured import known_tokens, text

MIXED = torch.tensor([900, 10, 480, 20])
LINEAR = (linear(), noise(4, 5, 19))
CONV = (conv(padding=1), noise(4, 4, 6, 6))
EITHER = pytest.mark.parametrize(("layer", "x"), [LINEAR, CONV], ids=["linear", "conv2d"])


def packed(layer: nn.Module, choice: Choice, tensors: dict[str, Tensor]) -> nn.Module:
    """`layer` packed alone."""
    plan = Plan({"0": choice}, encoding=ENCODING)
    return pack_layer("0", layer, plan, Calibration(tensors={"0": tensors}))


def at(layer: nn.Module, x: Tensor, timestep: object) -> Tensor:
    """The output of a layer alone at a timestep."""
    with layer.reader.holding(timestep):
        return layer(x)


class TestExecution:
    @EITHER
    @pytest.mark.parametrize("activation", ["uint4", "uint6", "uint8", "int8"])
    def test_one_step_equals_a_static_format(self, layer: nn.Module, x: Tensor, activation: str):
        static = Choice("int4/channel", f"{activation}/tensor")
        plan, bounds = Plan({"0": static}, encoding=ENCODING), InputRange(-2.0, 3.0)
        expected = pack_layer("0", layer, plan, Calibration({"0": (bounds,)}))
        tensors = {
            "timestep": as_bits(torch.tensor([500.0])),
            "step_scale": expected.input_scale,
            "step_zero_point": expected.input_zero_point,
        }
        stepped = Choice("int4/channel", f"{activation}/step", (StepScales(1),))
        assert torch.equal(at(packed(layer, stepped, tensors), x, 7), expected(x))

    @EITHER
    @pytest.mark.parametrize(
        "weight", ["int4/channel", "uint3/channel", "int8/channel", "lut2/channel"]
    )
    def test_codes_of_a_step_are_those_of_its_scale(self, layer: nn.Module, x: Tensor, weight: str):
        found = packed(layer, choice(weight), step_tables())
        activation = parse_activation_format("uint4/tensor")
        for t, scale, zero in zip(TIMESTEPS, SCALES, ZERO_POINTS, strict=True):
            rounded = activation.roundtrip(x, torch.tensor([scale]), torch.tensor([float(zero)]))
            exact = found.to_float()(rounded)
            torch.testing.assert_close(at(found, x, t), exact, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("activation", ["uint2/step", "uint4/step", "uint6/step", "int8/step"])
    @pytest.mark.parametrize("weight", ["int2/channel", "int4/channel", "int8/channel"])
    def test_products_are_of_8_bit_codes(self, weight: str, activation: str):
        denoiser = packed_denoiser(weight, activation, step_tables(zero_points=(0, 0, 0)))
        assert {each.arithmetic for each in executions(denoiser)} == {"int8"}

    def test_summaries_say_how_many_bits_the_inputs_have(self):
        words = {each.products for each in executions(packed_denoiser())}
        assert words == {"4-bit inputs in 8-bit products"}
        eight = packed_denoiser(activation="uint8/step")
        assert {each.products for each in executions(eight)} == {"int8"}

    @pytest.mark.parametrize("weight", ["int4/channel", "uint3/group8", "int8/channel"])
    def test_a_batch_of_mixed_timesteps_is_that_of_single_calls(self, weight: str):
        denoiser, x = packed_denoiser(weight), batch(4)
        singles = [denoiser(x[i : i + 1], MIXED[i]) for i in range(4)]
        mixed = denoiser(x, MIXED)
        exact = executions(denoiser)[0].arithmetic == "int8"
        tolerance = {} if exact else {"rtol": 1e-5, "atol": 1e-5}
        expected = torch.cat(singles)
        if exact:
            assert torch.equal(mixed, expected)
        torch.testing.assert_close(mixed, expected, **tolerance)
        assert not torch.allclose(mixed, denoiser(x, 900))

    def test_several_rows_of_each_sample_share_its_scale(self):
        layer = packed(linear(), choice(), step_tables())
        x = noise(8, 19)  # two rows of four samples
        singles = [at(layer, x[2 * i : 2 * i + 2], MIXED[i]) for i in range(4)]
        assert torch.equal(at(layer, x, MIXED), torch.cat(singles))

    def test_a_batch_without_a_part_for_each_timestep_is_refused(self):
        layer = packed(linear(), choice(), step_tables())
        with pytest.raises(UsageError, match=r"batch of 4 timesteps .*\(3, 19\).*one timestep"):
            at(layer, noise(3, 19), MIXED)

    def test_unless_all_are_nearest_to_the_same(self):
        layer = packed(linear(), choice(), step_tables())
        x = noise(3, 19)
        assert torch.equal(at(layer, x, torch.tensor([9, 10, 11, 12])), at(layer, x, 10))

    def test_an_image_without_a_batch_takes_one_timestep(self):
        layer, x = packed(CONV[0], choice(), step_tables()), CONV[1]
        assert torch.equal(at(layer, x[0], 900), at(layer, x[:1], 900)[0])
        with pytest.raises(UsageError, match="no part for each"):
            at(layer, x[0], MIXED)

    def test_an_empty_batch_is_empty(self):
        layer = packed(linear(), choice(), step_tables())
        assert at(layer, noise(0, 5, 19), 900).shape == (0, 5, 7)

    def test_nan_stays_nan(self):
        layer, x = packed(linear(), choice(), step_tables()), noise(2, 3, 19)
        x[1, 2, 0] = torch.nan
        found = at(layer, x, 900)
        assert bool(found[1, 2].isnan().all())
        assert int(found.isnan().sum()) == found.shape[-1]

    @EITHER
    def test_gradients_pass_straight_through(self, layer: nn.Module, x: Tensor):
        found, x = packed(layer, choice(), step_tables()), x.clone().requires_grad_()
        at(found, x, MIXED).sum().backward()
        expected = x.detach().clone().requires_grad_()
        found.to_float()(expected).sum().backward()
        torch.testing.assert_close(x.grad, expected.grad, rtol=1e-4, atol=1e-4)

    def test_run_outside_of_its_denoiser_it_says_so(self):
        denoiser, x = packed_denoiser(), batch()
        denoiser(x, 10)
        with pytest.raises(UsageError, match="whole denoiser with a timestep"):
            denoiser.linear(x)
        with pytest.raises(UsageError, match="run the layer that it is a part of"):
            denoiser.linear.scaled(x)


class TestCompiled:
    @pytest.fixture(autouse=True)
    def fresh(self):
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    def test_one_graph_serves_all_timesteps(self, backend: str):
        denoiser, x = packed_denoiser(), batch(4)
        compiled = torch.compile(denoiser, backend=backend, fullgraph=True)
        given = (torch.tensor([900]), torch.tensor([10]), torch.tensor([480]), MIXED, MIXED.flip(0))
        for t in given:
            assert torch.equal(compiled(x, t), denoiser(x, t))
        before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert torch.equal(compiled(x, torch.tensor([20])), denoiser(x, 20))
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before

    def test_within_a_compiled_loop(self):
        denoiser, x = packed_denoiser(), batch()

        def loop(x: Tensor, timesteps: Tensor) -> Tensor:
            for t in timesteps:
                x = x + 0.1 * denoiser(x, t)[:, :4]
            return x

        timesteps = torch.tensor([900, 480, 20])
        compiled = torch.compile(loop, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x, timesteps), loop(x, timesteps))

    def test_compiled_layers_find_the_timestep_of_each_call(self):
        denoiser, x = packed_denoiser(), batch(4)
        given = (900, torch.tensor([10]), MIXED, 480.0, MIXED.flip(0))
        expected = [denoiser(x, t) for t in given]
        for layer in (denoiser.conv, denoiser.linear):
            layer.compile(backend="aot_eager", fullgraph=True)
        for t, output in zip(given, expected, strict=True):
            assert torch.equal(denoiser(x, t), output)

    def test_exported_it_takes_any_timestep(self):
        denoiser, x = packed_denoiser(), batch(2)
        exported = torch.export.export(denoiser, (x, torch.tensor([900])), strict=False).module()
        for t in (10, 480, 900):
            torch.testing.assert_close(exported(x, torch.tensor([t])), denoiser(x, t))

    def test_checkpointed_layers_are_told_the_timestep_of_their_call(self):
        denoiser = packed_denoiser()
        reader = TimestepReader.of(denoiser)
        inner = denoiser.conv.forward

        def checkpointed(x: Tensor) -> Tensor:
            again = reader.holding(reader.timestep)
            return checkpoint(
                inner, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again)
            )

        x = batch(2).requires_grad_()
        (expected,) = torch.autograd.grad(denoiser(x, 900).square().sum(), x)
        denoiser.conv.forward = checkpointed
        output = denoiser(x, 900)
        denoiser(x, 10)
        (found,) = torch.autograd.grad(output.square().sum(), x)
        assert torch.equal(found, expected)


class TestStored:
    @EITHER
    def test_a_step_takes_nine_bytes(self, layer: nn.Module, x: Tensor):
        weights = Choice("int4/channel", FLOAT)
        extra = module_bytes(packed(layer, choice(), step_tables()))
        extra -= module_bytes(packed(layer, weights, {}))
        assert extra == 9 * len(TIMESTEPS)

    def test_the_weight_is_that_without_steps(self):
        layer = linear()
        found = packed(layer, choice(), step_tables()).dequantized_weight()
        assert torch.equal(found, packed(layer, Choice("int4/channel"), {}).dequantized_weight())

    @pytest.mark.parametrize(
        ("tables", "complaint"),
        [
            (step_tables((500.0, 10.0, 900.0)), "timestep does not rise"),
            (step_tables((10.0, 10.0, 900.0)), "timestep does not rise"),
            (step_tables((10.0, float("nan"), 900.0)), "timestep holds NaN"),
            (step_tables(scales=(0.1, 0.0, 0.1)), "step_scale holds values that are not positive"),
            (step_tables(scales=(0.1, float("inf"), 0.1)), "step_scale holds NaN or infinite"),
        ],
        ids=["falling", "repeated", "nan", "zero", "infinite"],
    )
    def test_tables_that_make_no_sense_are_refused(self, tables: dict[str, Tensor], complaint: str):
        with pytest.raises(FormatError, match=f"layer 0: {complaint}"):
            packed(linear(), choice(), tables)

    def test_another_number_of_steps_is_refused(self):
        with pytest.raises(FormatError, match=r"needs step_scale as torch.int32 of shape \(3,\)"):
            packed(linear(), choice(), step_tables((1.0,), (1.0,), (0,)))

    def test_a_denoiser_without_a_timestep_is_refused_before_anything_is_packed(self):
        module = nn.Sequential(linear())
        plan = Plan({"0": choice()}, encoding=ENCODING)
        with pytest.raises(UsageError, match="Sequential is called without a timestep"):
            packed_copy(module, plan, Calibration(tensors={"0": step_tables()}))
        assert type(module[0]) is nn.Linear


class TestWithin:
    def test_constant_tokens_stay_out(self):
        layer, x = linear(), text(4, 5, 19)
        both = Choice("int4/channel", "uint4/step", (ConstantTokens(1), STEPS))
        tables = {f"others.{name}": each for name, each in step_tables().items()}
        constant, known = noise(1, 7, seed=5), as_bits(known_tokens(1, 19))
        tables |= {"constant": as_bits(constant), "known_input": known}
        found = packed(layer, both, tables)
        alone = packed(layer, choice(), step_tables())
        y = at_inner(found, found.others, x, MIXED)
        assert torch.equal(y[:, :1], constant.expand(4, 1, 7))
        torch.testing.assert_close(y[:, 1:], at(alone, x[:, 1:], MIXED))

    def test_split_inputs_have_tables_each(self):
        layer, x = linear(), noise(4, 5, 19)
        both = Choice("int4/channel", "uint4/step", (SplitInput(8), STEPS))
        first, second = step_tables(), step_tables(scales=(0.1, 0.3, 0.2))
        tables = {f"first.{name}": each for name, each in first.items()}
        tables |= {f"second.{name}": each for name, each in second.items()}
        found = packed(layer, both, tables)
        found.second.reader = found.first.reader
        y = at_inner(found, found.first, x, 900)
        activation = parse_activation_format("uint4/tensor")
        ends = ((slice(0, 8), 0.45), (slice(8, None), 0.2))
        rounded = [
            activation.roundtrip(x[..., part], torch.tensor([scale]), torch.tensor([5.0]))
            for part, scale in ends
        ]
        exact = found.to_float()(torch.cat(rounded, -1))
        torch.testing.assert_close(y, exact, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("inner", [ConstantTokens(1), SplitInput(2)], ids=str)
    def test_it_stands_last(self, inner: object):
        with pytest.raises(FormatError, match="put step_scales last"):
            Choice("int4/channel", "uint4/step", (STEPS, inner))


def at_inner(layer: nn.Module, timed: nn.Module, x: Tensor, timestep: object) -> Tensor:
    """The output of a layer of which a part knows the timestep."""
    with timed.reader.holding(timestep):
        return layer(x)


def test_scales_that_are_all_equal_are_one():
    given = GivenScales(torch.tensor([0.5, 0.5]), torch.tensor([3.0, 3.0])).shared()
    assert (given.scale.tolist(), given.zero_point.tolist()) == ([0.5], [3.0])
    other = GivenScales(torch.tensor([0.5, 0.5]), torch.tensor([3.0, 4.0])).shared()
    assert len(other.scale) == 2


def test_a_float_denoiser_with_one_packed_layer_reads_its_timestep():
    denoiser = Denoiser().eval().requires_grad_(False)
    plan = Plan({"linear": choice()}, encoding=ENCODING)
    found = packed_copy(denoiser, plan, Calibration(tensors={"linear": step_tables()}))
    assert TimestepReader.of(denoiser) is None
    x = batch()
    assert not torch.equal(found(x, 10), found(x, 900))


def test_parts_round_their_input_as_they_compute():
    layer = packed(linear(), choice(), step_tables())
    (part,) = layer.parts
    assert isinstance(part, QuantLayer)
    x, scale, zero = noise(2, 19), torch.tensor([0.5]), torch.tensor([8.0])
    expected = InputQuantizer(part.activation_format, scale, zero).rounded(x, Linear())
    assert torch.equal(part.round_input(x, scale, zero, None), expected)


def test_a_layer_cannot_take_scales_of_no_steps():
    with pytest.raises(FormatError, match="steps is 0"):
        StepScales(0)
    with pytest.raises(PlanError, match=r"structures.0.steps: Input should be a valid integer"):
        Plan.from_dict(
            {
                "version": 3,
                "layers": {
                    "a": {
                        "weight": "int4/channel",
                        "activation": "uint4/step",
                        "structures": [{"kind": "step_scales", "steps": "3"}],
                    }
                },
            }
        )
