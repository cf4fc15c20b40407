"""Checkpoints of layers whose inputs norms smooth: the norms are stored as they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import PlanError, UsageError
from mezzotint.models import Sampling, record_calls, trace_graph
from mezzotint.recipes.smoothed_by_norms import smoothed_by_norms
from mezzotint.runtime import module_bytes
from tests.checkpoint import packed
from tests.checkpoint.streaming.float_models import stored
from tests.models import tiny

SAMPLING = Sampling(("owl", "red fox"))


def smoothed(pipe: DiffusionPipeline, **encoding: object) -> tuple[mz.Plan, mz.Plan]:
    """All inputs of attention and feed-forward smoothed: by norms where they can, and by none."""
    unet = pipe.unet
    names = [name for name, each in unet.named_modules() if isinstance(each, torch.nn.Linear)]
    choice = mz.Choice("int4/channel", "int8/token", (mz.Smoothing(),))
    choices = {name: choice for name in names if ".attentions." in name}
    by_norms = smoothed_by_norms(choices, trace_graph(unet))
    return tuple(mz.Plan(each, encoding=mz.Encoding(**encoding)) for each in (by_norms, choices))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> DiffusionPipeline:
    folder = tmp_path_factory.mktemp("norms") / "tiny"
    made = tiny.tiny_stable_diffusion()
    made.register_modules(unet=tiny.smallest_unet())
    for name, parameter in made.unet.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter)
    made.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=2, guidance_scale=2.0)
    return mz.load(folder)


@pytest.fixture(scope="module")
def result(pipe: DiffusionPipeline) -> mz.Result:
    return mz.apply(pipe, smoothed(pipe)[0], sampling=SAMPLING)


@pytest.fixture(scope="module")
def saved(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("saved") / "owl")


def norms_of(plan: mz.Plan) -> set[str]:
    structures = (each for choice in plan.quantized.values() for each in choice.structures)
    return {each.norm for each in structures if isinstance(each, mz.NormSmoothing)}


def test_norms_of_attention_and_feed_forward_smooth(result: mz.Result):
    assert {name.rpartition(".")[2] for name in norms_of(result.plan)} == {
        "norm1", "norm2", "norm3"
    }  # fmt: skip
    kinds = {c.structures[0].kind for c in result.plan.quantized.values()}
    assert kinds == {"smoothing", "norm_smoothing"}, "layers behind no norm keep their exponents"


def test_the_output_is_that_of_stored_exponents_in_fewer_bytes(pipe, result):
    other = mz.apply(pipe, smoothed(pipe)[1], sampling=SAMPLING)
    assert torch.equal(packed.run(result.denoiser), packed.run(other.denoiser))
    channels = sum(
        pipe.unet.get_submodule(name).in_features
        for name, choice in result.plan.quantized.items()
        if choice.structures[0].kind == "norm_smoothing"
    )
    assert module_bytes(other.denoiser) - module_bytes(result.denoiser) == channels


def test_it_loads_bit_for_bit(result: mz.Result, saved: Path):
    loaded = mz.load(saved).unet
    assert packed.same(loaded.state_dict(), result.denoiser.state_dict())
    assert torch.equal(packed.run(loaded), packed.run(result.denoiser))
    assert module_bytes(loaded) == packed.tensor_bytes(saved / "unet" / packed.WEIGHTS)
    assert read_plan(saved) == result.plan


def test_the_plan_alone_makes_the_same_bytes_again(pipe, result):
    again = mz.apply(pipe, mz.Plan.from_dict(result.plan.to_dict()))
    assert packed.same(again.denoiser.state_dict(), result.denoiser.state_dict())


class TestDiskToDisk:
    def test_the_folder_of_a_checkpoint_gives_weights_and_norms(self, pipe, saved, tmp_path):
        source = Path(pipe.name_or_path)
        mz.quantize_checkpoint(source, tmp_path / "packed", plan=saved)
        assert packed.same(stored(tmp_path / "packed" / "unet"), stored(saved / "unet"))

    @pytest.mark.parametrize("rounding", ["nearest", "feedback"])
    def test_calls_give_them_too(self, pipe, tmp_path, rounding):
        source = Path(pipe.name_or_path)
        made = smoothed(pipe, rounding=rounding)[0]
        result = mz.apply(pipe, made, sampling=SAMPLING)
        expected = result.save(tmp_path / "expected")
        calls = record_calls(pipe, SAMPLING)
        plan = mz.PlanWithCalls(result.plan, calls)
        mz.quantize_checkpoint(source, tmp_path / "packed", plan=plan)
        assert packed.same(stored(tmp_path / "packed" / "unet"), stored(expected / "unet"))

    def test_trained_norms_and_biases_come_from_their_checkpoint(self, pipe, tmp_path):
        tuned = mz.tune(pipe, smoothed(pipe)[0], steps=2, sampling=SAMPLING)
        folder = tuned.save(tmp_path / "tuned")
        mz.quantize_checkpoint(Path(pipe.name_or_path), tmp_path / "packed", plan=folder)
        ours, theirs = stored(tmp_path / "packed" / "unet"), stored(folder / "unet")
        assert packed.same(ours, theirs)
        original = load_file(Path(pipe.name_or_path) / "unet" / packed.WEIGHTS)
        assert not torch.equal(ours["conv_norm_out.weight"], original["conv_norm_out.weight"])


def test_it_cannot_be_packed_while_a_float_model_loads(pipe, result):
    folder = Path(pipe.name_or_path) / "unet"
    with pytest.raises(PlanError, match="norm_smoothing needs its calibrated exponent"):
        UNet2DConditionModel.from_pretrained(
            folder, quantization_config=mz.MezzotintConfig(result.plan)
        )


@pytest.mark.parametrize(("target", "refused"), [("to_q", True), ("to_out.0", False)])
def test_adapters_of_the_original_do_not_fit_layers_that_a_norm_smooths_for(
    saved: Path, target: str, refused: bool
):
    unet, config = mz.load(saved).unet, LoraConfig(r=2, target_modules=[target])
    if not refused:
        unet.add_adapter(config)
        return
    with pytest.raises(UsageError, match=r"norm[12] smooths: .*smoothing_norms=false"):
        unet.add_adapter(config)
