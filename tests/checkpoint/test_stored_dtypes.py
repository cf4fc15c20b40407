"""What stays floating goes back to disk in the dtype that its checkpoint has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mezzotint as mz
from mezzotint._stored_dtypes import note_dtypes, stored_state
from mezzotint.evaluation import module_bytes, stored_bytes
from tests.models import tiny

WEIGHTS = "diffusion_pytorch_model.safetensors"
PLAN = mz.Plan({"conv_in": mz.Choice("int4/channel"), "conv_out": mz.Choice("int8/channel")})
SAMPLING = mz.Sampling(("owl",))
WIDE = "time_embedding.linear_1.bias"
"""A tensor that the checkpoint of half precision has in float32."""


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline in float16, but for one tensor; read only."""
    folder = tiny.save_few_step(tmp_path_factory.mktemp("half") / "tiny")
    for path in folder.glob("*/*.safetensors"):
        tensors = load_file(path)
        kept = {
            name: tensor if name == WIDE else halved(tensor) for name, tensor in tensors.items()
        }
        save_file(kept, path, {"format": "pt"})
    return folder


def halved(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def dtypes(folder: Path) -> Mapping[str, torch.dtype]:
    """Name → dtype of the tensors in the denoiser's file."""
    return {name: tensor.dtype for name, tensor in load_file(folder / "unet" / WEIGHTS).items()}


class TestSaving:
    @pytest.fixture
    def result(self, half: Path) -> mz.Result:
        return mz.apply(mz.load(half), PLAN)

    def test_every_tensor_goes_back_as_it_came(self, result, half, tmp_path):
        before, after = dtypes(half), dtypes(result.save(tmp_path / "packed"))
        left = before.keys() & after.keys()
        assert {name: after[name] for name in left} == {name: before[name] for name in left}
        assert after[WIDE] == torch.float32
        assert after["conv_in.bias"] == torch.float16

    def test_so_do_the_other_models_of_the_pipeline(self, result, half, tmp_path):
        folder = result.save(tmp_path / "packed")
        for part in ("vae", "text_encoder"):
            assert stored_bytes(folder / part) == stored_bytes(half / part)

    def test_the_denoiser_by_itself_too(self, result, tmp_path):
        result.denoiser.save_pretrained(tmp_path / "unet")
        assert dtypes(tmp_path) == dtypes(result.save(tmp_path / "packed"))

    def test_the_images_of_the_saved_pipeline_are_the_same(self, result, tmp_path):
        loaded = mz.load(result.save(tmp_path / "packed"))
        assert loaded.unet.dtype == torch.float32
        images = [mz.generate(pipe, SAMPLING) for pipe in (result.pipeline, loaded)]
        assert (images[0] == images[1]).all()

    def test_a_saved_one_is_saved_again_byte_for_byte(self, result, tmp_path):
        first = result.save(tmp_path / "first")
        again = mz.load(first)
        again.unet.save_pretrained(tmp_path / "unet")
        assert (tmp_path / "unet" / WEIGHTS).read_bytes() == (first / "unet" / WEIGHTS).read_bytes()

    def test_from_disk_to_disk_it_is_the_same_file(self, result, half, tmp_path):
        folder = result.save(tmp_path / "packed")
        mz.quantize_checkpoint(half, tmp_path / "streamed", plan=PLAN)
        written = (tmp_path / "streamed" / "unet" / WEIGHTS).read_bytes()
        assert written == (folder / "unet" / WEIGHTS).read_bytes()

    def test_a_pipeline_that_diffusers_loaded_is_known_by_its_folder(self, half, tmp_path):
        pipe = DiffusionPipeline.from_pretrained(half, dtype=torch.float32)
        folder = mz.apply(pipe, PLAN).save(tmp_path / "packed")
        assert dtypes(folder)["conv_in.bias"] == torch.float16

    def test_a_model_packed_while_loading_is_stored_alike(self, half, result, tmp_path):
        config = mz.MezzotintConfig(PLAN)
        unet = UNet2DConditionModel.from_pretrained(half / "unet", quantization_config=config)
        unet.save_pretrained(tmp_path / "unet")
        assert dtypes(tmp_path) == dtypes(result.save(tmp_path / "packed"))


class TestExceptions:
    def test_what_was_changed_since_keeps_its_precision(self, half, tmp_path):
        pipe = mz.load(half)
        pipe.unet.conv_norm_out.weight.data += 1e-4
        folder = mz.apply(pipe, PLAN).save(tmp_path / "packed")
        assert dtypes(folder)["conv_norm_out.weight"] == torch.float32
        assert dtypes(folder)["conv_norm_out.bias"] == torch.float16

    def test_what_was_cast_is_stored_as_it_is(self, half, tmp_path):
        pipe = mz.load(half)
        pipe.unet.to(torch.bfloat16)
        folder = mz.apply(pipe, PLAN).save(tmp_path / "packed")
        assert dtypes(folder)["time_embedding.linear_2.weight"] == torch.bfloat16

    def test_a_model_made_in_memory_is_stored_as_it_is(self, tmp_path):
        unet = mz.quantize_denoiser(tiny.tiny_unet())
        unet.save_pretrained(tmp_path / "unet")
        assert dtypes(tmp_path)["conv_norm_out.weight"] == torch.float32

    def test_corrected_biases_are_rounded_to_the_stored_dtype(self, half, tmp_path):
        encoding = mz.Encoding(bias_correction=True)
        plan = mz.Plan(PLAN.choices, encoding=encoding)
        pipe = mz.load(half)
        result = mz.apply(pipe, plan, sampling=SAMPLING)
        bias = result.denoiser.conv_in.bias
        assert not torch.equal(bias, pipe.unet.conv_in.bias)
        loaded = mz.load(result.save(tmp_path / "packed"))
        assert dtypes(tmp_path / "packed")["conv_in.bias"] == torch.float16
        assert torch.equal(loaded.unet.conv_in.bias, bias)


class TestBytes:
    def test_are_those_of_the_file_before_and_after_saving(self, half, tmp_path):
        pipe = mz.load(half)
        assert module_bytes(pipe.unet) == stored_bytes(half / "unet")
        result = mz.apply(pipe, PLAN)
        folder = result.save(tmp_path / "packed")
        assert module_bytes(result.denoiser) == stored_bytes(folder / "unet")
        assert module_bytes(mz.load(folder).unet) == stored_bytes(folder / "unet")

    def test_are_what_a_budget_of_bytes_counts(self, half, tmp_path):
        pipe = mz.load(half)
        size = module_bytes(pipe.unet) * 2 // 3
        recipe = mz.Auto(formats=("int4/channel", "int8/channel", "float"), bos=False)
        result = mz.quantize(pipe, recipe, mz.Budget(size=size, act_bits=16), sampling=SAMPLING)
        stored = stored_bytes(result.save(tmp_path / "packed") / "unet")
        assert 0.9 * size < stored <= size

    def test_a_layer_that_stays_floating_costs_what_its_file_holds(self, half):
        by_name = {layer.name: layer for layer in mz.inventory(mz.load(half).unet)}
        assert by_name["conv_in"].weight_bytes == 2 * by_name["conv_in"].parameters


def test_tensors_that_share_a_place_and_nothing_else_are_cast_apart():
    """All empty tensors stand at the same address; so does a view of another shape."""
    module = nn.Module()
    module.whole = nn.Parameter(torch.ones(2, 3))
    module.flat = nn.Parameter(module.whole.detach().view(6))
    module.none, module.neither = nn.Parameter(torch.ones(0, 3)), nn.Parameter(torch.ones(4, 0))
    note_dtypes(module, dict.fromkeys(("whole", "flat", "none", "neither"), torch.float16))
    with stored_state(module):
        stored = module.state_dict()
    assert {name: tuple(each.shape) for name, each in stored.items()} == {
        "whole": (2, 3), "flat": (6,), "none": (0, 3), "neither": (4, 0),
    }  # fmt: skip
    assert {each.dtype for each in stored.values()} == {torch.float16}
