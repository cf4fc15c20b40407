"""LoRA files merged into the weights before anything else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor

import mezzotint as mz
from mezzotint.errors import CheckpointError, ModelError, UsageError
from mezzotint.models import LoraFile, lora_files
from tests.models import tiny
from tests.models.random_lora import save_random_lora

LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in float16, one step; read only."""
    path = tmp_path_factory.mktemp("lora") / "tiny"
    tiny.tiny_stable_diffusion().to(torch.float16).save_pretrained(path)
    tiny.write_generation(path, num_inference_steps=1, guidance_scale=1.0)
    return path


@pytest.fixture(scope="module")
def lora(folder: Path) -> Path:
    """A LoRA of the denoiser's attention, as diffusers writes it; read only."""
    return save_random_lora(folder, folder.with_name("style.safetensors"))


def change(pipe: DiffusionPipeline, original: DiffusionPipeline) -> Tensor:
    one, other = (each.unet.get_submodule(LAYER).weight for each in (pipe, original))
    return (one - other).detach()


@pytest.fixture(scope="module")
def original(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


def test_what_is_merged_is_what_an_adapter_computes(folder, lora, original):
    adapted = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    adapted.load_lora_weights(str(lora.parent), weight_name=lora.name)
    merged = mz.load(folder, lora=lora)
    x = torch.randn(2, 32)
    expected = adapted.unet.get_submodule(LAYER)(x)
    assert change(merged, original).abs().max() > 0.01
    assert torch.allclose(merged.unet.get_submodule(LAYER)(x), expected, atol=1e-2)
    assert type(merged.unet.get_submodule(LAYER)) is torch.nn.Linear
    untouched = "conv_in"
    assert torch.equal(merged.unet.get_submodule(untouched).weight, original.unet.conv_in.weight)


def test_a_weight_multiplies_it(folder, lora, original):
    once = change(mz.load(folder, lora=lora), original)
    half = change(mz.load(folder, lora=f"{lora}:0.5"), original)
    assert torch.allclose(half, once / 2, atol=2e-3)


def test_several_are_added(folder, lora, original):
    once = change(mz.load(folder, lora=lora), original)
    thrice = change(mz.load(folder, lora=[lora, LoraFile(lora, 2.0)]), original)
    assert torch.allclose(thrice, 3 * once, atol=8e-3)


def test_sums_are_rounded_to_the_checkpoints_dtype(folder, lora):
    weight = mz.load(folder, lora=lora).unet.get_submodule(LAYER).weight
    assert torch.equal(weight, weight.half().float())


def test_the_plan_names_them(folder, lora, tmp_path):
    plan = mz.Plan({"conv_in": mz.Choice("int8/channel")})
    digest = hashlib.sha256(lora.read_bytes()).hexdigest()
    named = [{"file": "style.safetensors", "sha256": digest, "weight": 0.8}]
    result = mz.apply(mz.load(folder, lora=f"{lora}:0.8"), plan)
    assert result.plan.context["loras"] == named
    saved = mz.load(result.save(tmp_path / "out"))
    assert saved.unet.hf_quantizer.plan.context["loras"] == named
    with pytest.raises(UsageError, match=r"plan: was made with .* merged into the weights; load"):
        mz.apply(mz.load(folder), result.plan)


def test_one_of_another_architecture_is_refused(folder, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"transformer.blocks.0.lora_A.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(
        ModelError, match=r"other\.safetensors: (holds nothing for|cannot be merge)"
    ):
        mz.load(folder, lora=path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("style.ckpt", "is a pickle"),
        ("none.safetensors", "is no .safetensors file"),
        (".", "is no .safetensors file"),
    ],
)
def test_what_is_no_lora_is_refused(folder, tmp_path, name, why):
    with pytest.raises(ModelError, match=why):
        mz.load(folder, lora=tmp_path / name)


def test_a_truncated_one_is_told_as_such(lora, tmp_path):
    path = tmp_path / "style.safetensors"
    path.write_bytes(lora.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{path}: is truncated or damaged .*download it"):
        LoraFile.of(path)


def test_there_may_be_none(lora):
    assert lora_files(None) == lora_files([]) == ()
    assert lora_files([f"{lora}:2", lora]) == (LoraFile(lora, 2.0), LoraFile(lora))


def test_what_names_no_file_is_refused():
    with pytest.raises(UsageError, match=r"^lora: is a int; name a file, or a list of them$"):
        lora_files(3)
    with pytest.raises(UsageError, match=r"^3: is a int; name a path"):
        lora_files([3])


def test_a_weight_must_be_finite(lora):
    with pytest.raises(UsageError, match="nan is no number to multiply by"):
        LoraFile.of(f"{lora}:nan")


def test_a_colon_may_be_part_of_the_name(lora, tmp_path):
    path = tmp_path / "a:b.safetensors"
    path.write_bytes(lora.read_bytes())
    assert LoraFile.of(str(path)) == LoraFile(path)
    assert LoraFile.of(f"{path}:-1") == LoraFile(path, -1.0)


def test_none_is_merged_into_what_is_quantized_or_streamed(folder, lora, tmp_path):
    plan = mz.Plan({"conv_in": mz.Choice("int8/channel")})
    packed = mz.apply(mz.load(folder), plan).save(tmp_path / "out")
    with pytest.raises(UsageError, match="is quantized already; start from the original"):
        mz.load(packed, lora=lora)
    with pytest.raises(UsageError, match="lora: is merged in memory"):
        mz.load(folder, lora=lora, stream=True)
