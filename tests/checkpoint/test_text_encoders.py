"""Packed text encoders, which transformers saves and loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedModel, T5Config, T5EncoderModel

import mezzotint as mz
from mezzotint.errors import CheckpointError, PlanError, UsageError
from mezzotint.evaluation import module_bytes
from mezzotint.runtime import packed_layers
from tests.checkpoint.packed import rewrite, same, tensor_bytes
from tests.models import tiny

WEIGHTS = "model.safetensors"
TOKENS = torch.tensor([[0, 5, 7, 1], [0, 9, 1, 1]])


def clip() -> CLIPTextModel:
    return tiny.tiny_text_encoder(tiny.tiny_tokenizer()).eval()


def t5() -> T5EncoderModel:
    """With an embedding under two names, and a layer that transformers keeps in float32."""
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=16, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=2, tie_word_embeddings=1
    )
    return T5EncoderModel(config).eval()


MODELS = {"CLIP": clip, "T5": t5}


@torch.no_grad()
def run(model: nn.Module) -> Tensor:
    return model(input_ids=TOKENS)[0]


@pytest.fixture(params=MODELS, scope="module")
def packed(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Packed in memory; read only."""
    return mz.quantize_denoiser(MODELS[request.param](), weight_bits=4, act_bits=8)


@pytest.fixture(scope="module")
def saved(packed: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved; read only."""
    folder = tmp_path_factory.mktemp("saved") / "text_encoder"
    packed.save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A packed CLIP, for tests that damage it."""
    mz.quantize_denoiser(clip(), weight_bits=4).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_it_comes_back_bit_for_bit(packed: PreTrainedModel, saved: Path):
    loaded = type(packed).from_pretrained(saved)
    assert same(loaded.state_dict(), packed.state_dict())
    assert torch.equal(run(loaded), run(packed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_codes_and_scales_are_the_same_in_any_dtype(packed, saved, dtype):
    loaded = type(packed).from_pretrained(saved, dtype=dtype)
    for name, layer in packed_layers(packed).items():
        other = loaded.get_submodule(name)
        assert torch.equal(other.dequantized_weight(), layer.dequantized_weight())
    assert torch.isfinite(run(loaded)).all()


def test_what_was_loaded_is_saved_again(packed: PreTrainedModel, saved: Path, tmp_path: Path):
    type(packed).from_pretrained(saved).save_pretrained(tmp_path / "again")
    for name in (WEIGHTS, "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_a_floating_one_is_packed_while_it_loads(tmp_path: Path):
    clip().save_pretrained(tmp_path / "floating")
    config = mz.MezzotintConfig(weight_bits=4, act_bits=8)
    loaded = CLIPTextModel.from_pretrained(tmp_path / "floating", quantization_config=config)
    expected = mz.quantize_denoiser(clip(), weight_bits=4, act_bits=8)
    assert same(loaded.state_dict(), expected.state_dict())


def test_dequantized_it_is_stock_again(packed: PreTrainedModel, saved: Path, tmp_path: Path):
    loaded = type(packed).from_pretrained(saved)
    before = run(type(packed).from_pretrained(saved))
    loaded.dequantize()
    assert not packed_layers(loaded)
    loaded.save_pretrained(tmp_path / "floating")
    assert "quantization_config" not in json.loads((tmp_path / "floating/config.json").read_text())
    after = run(type(packed).from_pretrained(tmp_path / "floating"))
    assert torch.allclose(before, after, atol=0.2)


def test_its_parameters_count_in_the_size_of_files(packed: PreTrainedModel, saved: Path):
    assert abs(module_bytes(packed) / tensor_bytes(saved / WEIGHTS) - 1) < 0.02


class TestDamage:
    def load(self, folder: Path) -> None:
        CLIPTextModel.from_pretrained(folder)

    @pytest.mark.parametrize("verify", ["0", "1"], ids=["unverified", "verified"])
    def test_a_missing_tensor_is_no_random_one(self, damaged, monkeypatch, verify):
        monkeypatch.setenv("MEZZOTINT_VERIFY", verify)
        rewrite(damaged / WEIGHTS, **{"encoder.layers.0.mlp.fc1.weight_codes": None})
        with pytest.raises(CheckpointError, match=r"lacks 1 tensor.*fc1.weight_codes"):
            self.load(damaged)

    def test_a_tensor_of_another_dtype_is_named(self, damaged):
        codes = {"encoder.layers.0.mlp.fc1.weight_codes": torch.zeros(3, dtype=torch.int32)}
        rewrite(damaged / WEIGHTS, **codes)
        with pytest.raises(
            CheckpointError, match=r"fc1.weight_codes: is torch.int32 of shape \(3,\)"
        ):
            self.load(damaged)

    def test_another_value_is_not_what_was_saved(self, damaged):
        rewrite(damaged / WEIGHTS, **{"final_layer_norm.bias": torch.ones(tiny.TEXT_WIDTH)})
        with pytest.raises(CheckpointError, match=r"not those that were saved: final_layer_norm"):
            self.load(damaged)

    def test_a_plan_of_another_model_is_refused(self, damaged):
        path = damaged / "config.json"
        config = json.loads(path.read_text())
        config["quantization_config"]["plan"]["layers"]["nowhere"] = {"weight": "int4/channel"}
        path.write_text(json.dumps(config))
        with pytest.raises(PlanError, match=r"config\.json: the plan names layer nowhere"):
            self.load(damaged)


def test_with_an_adapter_loaded_it_is_not_saved(tmp_path: Path):
    model = mz.quantize_denoiser(clip(), weight_bits=4)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UsageError, match="has an adapter loaded"):
        model.save_pretrained(tmp_path / "adapted")


LOAD = """
import sys
import mezzotint, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
torch.save([part.state_dict() for part in (pipe.text_encoder, pipe.vae, pipe.unet)], sys.argv[2])
"""


@pytest.fixture(scope="module")
def pipe() -> DiffusionPipeline:
    """With a packed text encoder, a packed autoencoder and a floating denoiser; read only."""
    pipe = tiny.tiny_stable_diffusion()
    mz.quantize_denoiser(pipe.text_encoder, weight_bits=4, act_bits=8)
    mz.quantize_denoiser(pipe.vae, weight_bits=8, act_bits=16)
    return pipe


class TestPipelines:
    def test_a_fresh_process_loads_the_same_bits(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path / "saved")
        command = [sys.executable, "-c", LOAD, tmp_path / "saved", tmp_path / "states"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False
        )
        assert process.returncode == 0, process.stderr
        states = torch.load(tmp_path / "states", weights_only=True)
        for part, state in zip((pipe.text_encoder, pipe.vae, pipe.unet), states, strict=True):
            assert same(state, part.state_dict())

    def test_our_own_saving_names_what_is_packed(self, pipe, tmp_path):
        folder = mz.Result(pipe, mz.Plan({})).save(tmp_path / "saved")
        card = (folder / "README.md").read_text()
        assert "layers of the\n`vae` and 6 layers of the\n`text_encoder` are packed" in card
        digests = json.loads((folder / "digests.json").read_text())
        assert {name.partition("/")[0] for name in digests["files"]} == {"unet"}
        assert all(file.verified for file in mz.verify_checkpoint(folder))
        loaded = mz.load(folder)
        assert same(loaded.text_encoder.state_dict(), pipe.text_encoder.state_dict())

    def test_a_component_packed_in_part_is_not_saved(self, pipe, tmp_path):
        partly = tiny.tiny_stable_diffusion()
        mz.quantize_denoiser(partly.text_encoder.encoder, weight_bits=4)
        with pytest.raises(CheckpointError, match="text_encoder are packed, but it has no plan"):
            mz.Result(partly, mz.Plan({})).save(tmp_path / "saved")
        assert not (tmp_path / "saved").exists()


def test_its_files_are_shared_out(packed: PreTrainedModel, tmp_path: Path):
    packed.save_pretrained(tmp_path / "shards", max_shard_size=4096)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    loaded = type(packed).from_pretrained(tmp_path / "shards")
    assert same(loaded.state_dict(), packed.state_dict())
    shutil.rmtree(tmp_path / "shards")
