"""The recipe without training: from pipeline to plan; every switch changes what it is about."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.errors import ModelError, UsageError
from mezzotint.models import find_denoiser, record_calls
from mezzotint.runtime import ConstantTokens, Smoothing, StepScales, module_bytes
from tests.models import tiny


def output(result: mz.Result, call) -> Tensor:
    with torch.no_grad():
        return call.run(result.denoiser)


@pytest.fixture(scope="module")
def call(pipe, sampling):
    return record_calls(pipe, sampling, limit=1)[0]


def narrow(plan: mz.Plan) -> dict[str, mz.Choice]:
    """The layers that are no exception."""
    kept = {name for names in plan.context["exceptions"].values() for name in names}
    return {name: choice for name, choice in plan.quantized.items() if name not in kept}


def test_every_layer_has_the_nominal_width_on_average(quantize):
    layers = narrow(quantize().plan)
    assert {choice.weight_format.bits for choice in layers.values()} == {2.0}
    assert any(choice.weight.startswith("mixed/kmeans1:") for choice in layers.values())
    assert {choice.activation for choice in layers.values()} == {"uint4/step"}


def test_exceptions_are_in_the_plan_with_their_reasons(quantize):
    plan = quantize().plan
    exceptions = plan.context["exceptions"]
    assert set(exceptions["8 bits"]) == {
        "conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"
    }  # fmt: skip
    for name in exceptions["8 bits"]:
        assert plan[name] == mz.Choice("uint8/channel", "uint8/tensor")
        assert "8 bits" in plan.reasons[name]
    assert exceptions["floating"]
    for name in exceptions["floating"]:
        assert plan[name] == mz.Choice()
        assert "stays floating" in plan.reasons[name]


def test_every_layer_of_the_model_is_in_the_plan(quantize, pipe):
    kinds = (nn.Linear, nn.Conv2d)
    assert len(quantize().plan) == sum(type(m) in kinds for m in pipe.unet.modules())


def test_bits_are_said_as_papers_count_them_and_as_they_are_stored(quantize, pipe):
    result = quantize()
    bits = result.plan.context["bits"]
    weights = sum(math.prod(pipe.unet.get_submodule(name).weight.shape) for name in result.plan)
    assert bits["nominal"] == 2.0
    assert bits["nominal"] < bits["with_exceptions"] < bits["stored"] < bits["denoiser"]
    stored = module_bytes(result.denoiser) * 8 / weights
    assert bits["denoiser"] == pytest.approx(stored, abs=1e-3)


def test_plus_takes_bits_from_nobody(quantize):
    plain, plus = quantize().plan, quantize(plus=True).plan
    assert plus.context["bits"]["nominal"] > 2
    assert plus.context["bits"]["stored"] > plain.context["bits"]["stored"]
    assert not any("1:" in choice.weight for choice in narrow(plus).values())


@pytest.mark.parametrize(
    "change",
    [
        {"search": "released"},
        {"channels": "random"},
        {"channels": "head-tail"},
        {"channels": "none"},
        {"plus": True},
        {"one_bit_levels": False},
        {"rounding": "feedback"},
        {"ranges": mz.Encoding().search},
        {"smoothing": False},
        {"inputs": "tensor"},
        {"inputs": "token"},
        {"bos": False},
        {"shortcuts": "quantized"},
        {"act_bits": 16},
        {"weight_bits": 3},
    ],
    ids=str,
)
def test_every_switch_changes_the_packed_output(quantize, call, change):
    assert not torch.equal(output(quantize(), call), output(quantize(**change), call))


def test_one_width_per_layer_is_the_base_of_efficientdm(quantize):
    layers = narrow(quantize(channels="none", smoothing=False).plan)
    assert {choice.weight for choice in layers.values()} == {"uint2/channel"}
    assert any(isinstance(each, StepScales) for c in layers.values() for each in c.structures)


def test_constant_first_tokens_stay_out_of_quantizers(quantize):
    def constant(plan: mz.Plan) -> list[str]:
        return [n for n, c in plan.choices.items() if ConstantTokens(1) in c.structures]

    assert constant(quantize().plan)
    assert not constant(quantize(bos=False).plan)


def test_inputs_are_smoothed_within_constant_tokens_and_around_their_scales(quantize):
    for choice in narrow(quantize().plan).values():
        smoothing, scales = choice.structures[-2:]
        assert isinstance(smoothing, Smoothing)
        assert scales == StepScales(2)
    plain = narrow(quantize(smoothing=False).plan).values()
    assert not any(isinstance(each, Smoothing) for c in plain for each in c.structures)


class TestNormsThatSmooth:
    """Whatever reads a norm's output alone is smoothed by it."""

    def test_they_do_where_nothing_stands_between(self, quantize):
        layers = narrow(quantize().plan)
        by_norms = {
            name for name, choice in layers.items() if choice.structures[0].kind == "norm_smoothing"
        }
        block = "up_blocks.0.attentions.0.transformer_blocks.0"
        assert {f"{block}.attn1.to_{each}" for each in "qkv"} < by_norms
        assert {f"{block}.attn2.to_q", f"{block}.ff.net.0.proj"} < by_norms
        assert not any(name.endswith(("attn2.to_k", "to_out.0", "conv1")) for name in by_norms)

    def test_the_output_is_the_same_bit_for_bit_in_fewer_bytes(self, quantize, call):
        result, stored = quantize(), quantize(smoothing_norms=False)
        assert torch.equal(output(result, call), output(stored, call))
        assert module_bytes(result.denoiser) < module_bytes(stored.denoiser)
        bits = (each.plan.context["bits"]["stored"] for each in (result, stored))
        assert next(bits) < next(bits)

    def test_input_bits_by_step_go_with_them(self, quantize, call):
        options = {"weight_bits": 3, "channels": "none", "step_bits": True}
        results = [quantize(**options, smoothing_norms=each) for each in (True, False)]
        assert torch.equal(*(output(each, call) for each in results))


def test_scales_are_of_all_steps_of_the_sampler(quantize):
    structures = [each for c in narrow(quantize().plan).values() for each in c.structures]
    assert StepScales(2) in structures


def test_the_plan_alone_finds_the_same_again(quantize, pipe, call):
    result = quantize()
    again = mz.apply(pipe, mz.Plan.from_dict(result.plan.to_dict()))
    assert torch.equal(output(result, call), output(again, call))


def test_what_is_saved_computes_the_same(quantize, call, tmp_path):
    result = quantize()
    again = mz.load(result.save(tmp_path / "saved"))
    expected = output(result, call)
    with torch.no_grad():
        assert torch.allclose(call.run(again.unet), expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"search": "released"}, {"channels": "none"}], ids=str)
def test_few_channels_are_left_alone_by_the_released_search(quantize, pipe, options):
    plan = quantize(**options).plan
    for name, m in plan.context["outlier_channels"].items():
        assert m in (0, pipe.unet.get_submodule(name).weight.shape[0] // 10)


def test_a_transformer_has_its_exceptions_by_role(tmp_path):
    tiny.tiny_pixart_sigma().save_pretrained(tmp_path)
    tiny.write_generation(
        tmp_path, num_inference_steps=2, guidance_scale=2.0, use_resolution_binning=False,
        clean_caption=False, max_sequence_length=16
    )  # fmt: skip
    pipe = mz.load(tmp_path)
    budget = mz.Budget(weight_bits=2, act_bits=4)
    sampling = mz.Sampling(prompts=("owl", "red heart"))
    plan = mz.quantize(pipe, mz.MPQDM(train_steps=0), budget, sampling=sampling).plan
    assert {"pos_embed.proj", "proj_out"} < set(plan.context["exceptions"]["8 bits"])
    assert plan.context["bits"]["nominal"] == 2.0


def test_a_module_alone_is_quantized_on_its_calls(pipe, sampling):
    calls = record_calls(pipe, sampling)
    budget = mz.Budget(weight_bits=2, act_bits=4)
    result = mz.quantize_module(pipe.unet, calls, mz.MPQDM(train_steps=0), budget)
    assert result.plan.context["bits"]["nominal"] == 2.0


class TestBadInput:
    @pytest.mark.parametrize(
        ("budget", "options", "named"),
        [
            ({"weight_bits": 1}, {}, "weight_bits: is 1.*channels none"),
            ({"weight_bits": 2.5}, {}, "weight_bits: is 2.5"),
        ],
        ids=["no bit to take", "part of a bit"],
    )
    def test_a_budget_that_is_no_width_is_refused(self, pipe, sampling, budget, options, named):
        with pytest.raises(UsageError, match=named):
            mz.quantize(pipe, mz.MPQDM(**options), mz.Budget(**budget), sampling=sampling)

    def test_without_a_timestep_there_are_no_steps_to_scale_inputs_by(self):
        module = nn.Sequential(*(nn.Linear(16, 16) for _ in range(3)))
        calls = [((torch.randn(4, 16),), {})]
        with pytest.raises(UsageError, match=r"without a timestep"):
            mz.quantize_module(
                module, calls, mz.MPQDM(train_steps=0), mz.Budget(weight_bits=2, act_bits=4)
            )

    def test_there_has_to_be_a_layer_that_is_no_exception(self):
        module = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
        calls = [((torch.randn(4, 16),), {})]
        with pytest.raises(ModelError, match="every layer is an exception"):
            mz.quantize_module(module, calls, mz.MPQDM(train_steps=0), mz.Budget(weight_bits=2))

    def test_a_latency_is_refused(self, pipe: DiffusionPipeline):
        with pytest.raises(UsageError, match="latency: recipe 'mpqdm'"):
            mz.quantize(pipe, "mpqdm", mz.Budget(latency="0.5x"))

    def test_the_denoiser_is_left_as_it_was(self, quantize, pipe):
        quantize()
        _, denoiser = find_denoiser(pipe)
        assert not denoiser._forward_pre_hooks
        assert all(not p.grad_fn for p in denoiser.parameters())
