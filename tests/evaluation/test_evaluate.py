"""All figures of a pair of pipelines, composed."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.evaluation import Baseline, bench, contrastive_for, evaluate
from mezzotint.measuring import InProcess
from mezzotint.runtime import module_bytes
from tests.models import tiny

PROMPTS = ("owl, noto style", "red heart, flat style", "tree, noto style")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    folder = tiny.save_few_step(tmp_path_factory.mktemp("evaluate") / "tiny")
    return mz.load(folder)


@pytest.fixture(scope="module")
def baseline(pipe):
    return Baseline.of(pipe, mz.Sampling(prompts=PROMPTS))


def quantized(pipe, bits: int) -> mz.Result:
    return mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=bits, act_bits=8))


def test_a_pipeline_equals_itself(pipe, baseline):
    found = evaluate(baseline, pipe)
    assert found.ssim.value == 1
    assert math.isinf(found.sqnr_db)
    assert found.fd_lite0 == pytest.approx(0, abs=1e-3)


def test_fewer_bits_are_further_away(pipe, baseline):
    eight, three = (evaluate(baseline, quantized(pipe, bits).pipeline) for bits in (8, 3))
    assert eight.sqnr_db > three.sqnr_db
    assert eight.psnr_db.value > three.psnr_db.value
    assert eight.denoiser_bytes > three.denoiser_bytes


def test_images_that_are_made_already_are_compared(pipe, baseline):
    found = evaluate(baseline, quantized(pipe, 3).pipeline, images=baseline.images)
    assert found.ssim.value == 1
    assert found.sqnr_db < 40


def test_an_executor_makes_the_images_of_both(pipe, baseline):
    asked = []

    class Watched(InProcess):
        def images(self, samplings):
            asked.append(self.original.pipe)
            return super().images(samplings)

    other = quantized(pipe, 3).pipeline
    found = evaluate(pipe, other, mz.Sampling(prompts=PROMPTS), executor=Watched)
    assert asked == [pipe, other]
    assert found.to_dict() == evaluate(baseline, other).to_dict()


def test_an_executor_computes_with_torch_only(pipe, baseline):
    compiled = mz.with_engine(quantized(pipe, 8).pipeline, "openvino")
    with pytest.raises(UsageError, match=r"executor: workers compute with torch, .* openvino"):
        evaluate(baseline, compiled, executor="in-process")


def test_simulated_inputs_are_called_so(pipe, baseline):
    convolutions = ("conv_in", "conv_out")
    choice = mz.Choice("uint4/channel", "uint8/channel/simulated")
    simulated = mz.apply(pipe, mz.Plan(dict.fromkeys(convolutions, choice)))
    found, plain = (
        evaluate(baseline, each.pipeline, images=baseline.images)
        for each in (simulated, quantized(pipe, 4))
    )
    assert found.figures()["simulated"] == "inputs of 2 layers"
    assert found.to_dict()["context"]["simulated_inputs"] == 2
    assert "simulated" not in plain.figures()


def test_simulated_attention_is_called_so(pipe, baseline):
    plan = mz.Plan({}, simulated_attention=mz.SimulatedAttention(q=8, softmax=6))
    simulated = mz.apply(pipe, plan)
    found = evaluate(baseline, simulated.pipeline, images=baseline.images)
    assert found.figures()["simulated"] == "attention: q8,softmax6"
    assert found.to_dict()["context"]["simulated_attention"] == "q8,softmax6"
    assert math.isfinite(found.sqnr_db)


def test_error_is_reported_for_every_timestep(pipe, baseline):
    found = evaluate(baseline, quantized(pipe, 4).pipeline)
    assert len(found.error) == 2
    assert all(step.low <= step.sqnr_db <= step.high for step in found.error)
    assert all(step.samples == len(PROMPTS) for step in found.error)


def test_bytes_are_those_in_memory(pipe, baseline):
    result = quantized(pipe, 4)
    found = evaluate(baseline, result.pipeline)
    assert found.denoiser_bytes == module_bytes(result.denoiser)
    parameters = sum(p.numel() for p in pipe.unet.parameters())
    assert found.of_fp16 == pytest.approx(found.denoiser_bytes / (2 * parameters))


def test_bytes_are_those_of_other_packed_components_too(pipe, baseline):
    names = [
        f"text_encoder.{name}"
        for name, part in pipe.text_encoder.named_modules()
        if name.endswith(("q_proj", "fc1"))
    ]
    plan = mz.Plan(dict.fromkeys(names, mz.Choice("int4/channel")), components=("text_encoder",))
    packed = mz.apply(pipe, plan).pipeline
    found = evaluate(baseline, packed, images=baseline.images)
    parts = (pipe.unet, pipe.text_encoder)
    assert found.denoiser_bytes == module_bytes(pipe.unet) + module_bytes(packed.text_encoder)
    assert found.reference_bytes == sum(map(module_bytes, parts)) > found.denoiser_bytes
    assert found.reference_weights == sum(p.numel() for part in parts for p in part.parameters())
    assert found.context["components"] == ["text_encoder", "unet"]


def test_a_reference_without_what_is_packed_is_refused(pipe, baseline):
    plan = mz.uniform_plan(pipe.text_encoder, weight_bits=8, act_bits=16)
    names = {f"text_encoder.{name}": choice for name, choice in plan.choices.items()}
    packed = mz.apply(pipe, mz.Plan(names, components=("text_encoder",))).pipeline
    bare = copy.copy(pipe)
    bare.text_encoder = None
    with pytest.raises(UsageError, match="reference: has no text_encoder, which is packed"):
        evaluate(replace(baseline, pipe=bare), packed, images=baseline.images)


def test_a_packed_reference_has_the_weights_of_its_original(pipe):
    eight, four = (quantized(pipe, bits).pipeline for bits in (8, 4))
    found = evaluate(eight, four, mz.Sampling(prompts=PROMPTS[:1]))
    assert found.reference_weights == sum(p.numel() for p in pipe.unet.parameters())
    assert found.reference_bytes == module_bytes(eight.unet)


def test_context_says_how_the_figures_came_about(pipe, baseline):
    context = evaluate(baseline, pipe).context
    assert {"images", "seed", "device", "torch", "mezzotint"} <= context.keys()


def test_the_result_is_valid_json_even_without_any_error(pipe, baseline):
    value = evaluate(baseline, pipe).to_dict()
    assert json.loads(json.dumps(value, allow_nan=False))["sqnr_db"] is None


def test_the_table_holds_every_figure(pipe, baseline):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(evaluate(baseline, quantized(pipe, 4).pipeline).table())
    assert all(word in capture.get() for word in ("PSNR", "SSIM", "FD-Lite0", "SQNR of ε at t"))


def test_a_few_images_make_a_biased_distance_and_it_says_so(pipe, baseline):
    assert "biased" in evaluate(baseline, pipe).figures()["FD-Lite0"]


def test_one_image_has_no_distribution(pipe):
    found = evaluate(pipe, pipe, mz.Sampling(prompts=PROMPTS[:1]))
    assert found.fd_lite0 is None


def test_prompts_are_needed_with_a_plain_reference(pipe):
    with pytest.raises(UsageError, match="sampling"):
        evaluate(pipe, pipe)


def test_embedded_models_bring_their_contrastive_pair(pipe):
    assert contrastive_for(pipe) is None
    contrastive = contrastive_for(mz.load("emoji-turbo"))
    embedded = contrastive.embed_texts(["owl, noto style", "red heart, flat style"])
    assert embedded.norm(dim=-1).tolist() == pytest.approx([1, 1])
    assert embedded[0] @ embedded[1] < 0.9


def test_r_precision_is_reported_for_both_where_there_is_a_contrastive_pair():
    turbo = mz.load("emoji-turbo")
    found = evaluate(turbo, turbo, mz.Sampling(prompts=PROMPTS))
    assert found.r_precision == found.reference_r_precision
    assert found.r_precision.n == found.r_precision.candidates == len(PROMPTS)
    change = found.r_precision_change
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_bench_names_kernels_and_interleaves_both(pipe):
    found = bench(pipe, quantized(pipe, 4).pipeline, repeats=1)
    value = found.to_dict()
    assert value["speedup"] == found.speedup
    kernels = {kernel["kernel"] for kernel in value["quantized"]["kernels"]}
    assert kernels & {"cpu-int8", "cpu-int8-onednn"}
    assert found.quantized.bytes < found.reference.bytes
