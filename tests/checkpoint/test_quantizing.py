"""A float checkpoint is packed while diffusers loads it."""

from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig, UNet2DConditionModel
from torch import nn

import mezzotint as mz
from mezzotint.errors import PlanError, UsageError
from mezzotint.runtime import module_bytes, packed_layers
from tests.checkpoint import packed
from tests.models import tiny

load = UNet2DConditionModel.from_pretrained

FIELDS = {"weight_bits": 4, "act_bits": 8, "modules_to_not_convert": ["conv_out"]}


@pytest.fixture(scope="module")
def loaded(float_folder: Path) -> UNet2DConditionModel:
    config = mz.MezzotintConfig(**FIELDS)
    return load(float_folder / "unet", quantization_config=config)


@pytest.fixture(scope="module")
def afterwards(float_folder: Path) -> UNet2DConditionModel:
    return mz.quantize_denoiser(
        load(float_folder / "unet"), weight_bits=4, act_bits=8, exclude=("conv_out",)
    )


def test_it_gives_the_bits_that_quantizing_afterwards_gives(
    loaded: UNet2DConditionModel, afterwards: UNet2DConditionModel
):
    assert packed.same(loaded.state_dict(), afterwards.state_dict())
    assert torch.equal(packed.run(loaded), packed.run(afterwards))


def test_the_models_are_alike_in_all_else(
    loaded: UNet2DConditionModel, afterwards: UNet2DConditionModel
):
    def traits(model: nn.Module) -> dict[str, object]:
        return {name: (type(m), m.training) for name, m in model.named_modules()}

    def gradients(model: nn.Module) -> dict[str, bool]:
        return {name: p.requires_grad for name, p in model.named_parameters()}

    assert traits(loaded) == traits(afterwards)
    assert gradients(loaded) == gradients(afterwards)


def test_no_floating_weight_is_kept(loaded: UNet2DConditionModel, afterwards: UNet2DConditionModel):
    assert module_bytes(loaded) == module_bytes(afterwards)
    assert not [
        n
        for n, _ in loaded.named_parameters()
        if n.removesuffix(".weight") in packed_layers(loaded)
    ]


def test_it_saves_and_loads_like_any_other(loaded: UNet2DConditionModel, tmp_path: Path):
    loaded.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert packed.same(again.state_dict(), loaded.state_dict())
    assert again.hf_quantizer.plan == loaded.hf_quantizer.plan


def test_shards_are_packed_one_by_one(
    loaded: UNet2DConditionModel, float_folder: Path, tmp_path: Path
):
    load(float_folder / "unet").save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    sharded = load(tmp_path, quantization_config=mz.MezzotintConfig(**FIELDS))
    assert packed.same(sharded.state_dict(), loaded.state_dict())


def test_one_config_serves_several_models(float_folder: Path, tmp_path: Path):
    tiny.tiny_dit().save_pretrained(tmp_path)
    config = mz.MezzotintConfig(weight_bits=8)
    load(float_folder / "unet", quantization_config=config)
    other = type(tiny.tiny_dit()).from_pretrained(tmp_path, quantization_config=config)
    assert packed_layers(other)


def test_a_whole_pipeline_can_be_loaded_so(float_folder: Path):
    mapping = PipelineQuantizationConfig(quant_mapping={"unet": mz.MezzotintConfig()})
    pipe = DiffusionPipeline.from_pretrained(float_folder, quantization_config=mapping)
    assert packed_layers(pipe.unet)


def test_a_plan_that_needs_calibration_is_refused(float_folder: Path):
    plan = mz.Plan({"conv_in": mz.Choice("int8/channel", "uint8/tensor")})
    with pytest.raises(PlanError, match=r"layer conv_in: .*calibrated.*load the model first"):
        load(float_folder / "unet", quantization_config=mz.MezzotintConfig(plan))


def test_a_plan_for_another_model_is_refused(float_folder: Path):
    plan = mz.Plan({"transformer_blocks.0": mz.Choice()})
    with pytest.raises(PlanError, match=r"names layer transformer_blocks\.0"):
        load(float_folder / "unet", quantization_config=mz.MezzotintConfig(plan))


def test_weights_that_never_arrive_are_an_error(float_folder: Path):
    with pytest.raises(UsageError, match=r"was not packed; load without offloading"):
        load(
            float_folder / "unet",
            offload_state_dict=True,
            quantization_config=mz.MezzotintConfig(),
        )
