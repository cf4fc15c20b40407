"""The denoisers that are timed, and their inputs."""

import functools

import diffusers
import pytest
import torch

from benchmarks.contestants.denoisers import (
    DENOISERS,
    Denoiser,
    folder_of,
    inputs,
    parameters_of,
    write_random,
)
from benchmarks.contestants.flat_arguments import FlatDenoiser, flat_tensors, named

SMALL = Denoiser(
    "a small U-Net",
    "UNet2DConditionModel",
    (4, 8, 8),
    (3, 8),
    {
        "block_out_channels": [32, 32],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "cross_attention_dim": 8,
        "layers_per_block": 1,
    },
)
MILLIONS = {"sd15": 860, "sdxl": 2567, "pixart": 611}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("denoisers") / "small"
    write_random(SMALL, path)
    return path


@functools.cache
def hollow(name):
    """The denoiser on the meta device."""
    denoiser = DENOISERS[name]
    cls = getattr(diffusers, denoiser.class_name)
    config = cls.load_config(folder_of(name, None)) if denoiser.embedded else denoiser.config
    with torch.device("meta"):
        return cls.from_config(config)


@pytest.mark.parametrize("name", MILLIONS)
def test_published_shapes_have_their_published_number_of_weights(name):
    millions = sum(p.numel() for p in hollow(name).parameters()) / 10**6
    assert millions == pytest.approx(MILLIONS[name], abs=1)


@pytest.mark.parametrize("name", DENOISERS)
def test_inputs_fit_the_denoiser(name):
    output = hollow(name)(**inputs(name, 2, torch.float32, "meta"))[0]
    assert output.shape[0] == 2
    assert output.shape[2:] == DENOISERS[name].latents[1:]


def test_inputs_are_the_same_in_every_dtype():
    full = inputs("emoji-turbo", 1, torch.float32, "cpu")
    half = inputs("emoji-turbo", 1, torch.bfloat16, "cpu")
    assert torch.equal(full["sample"].bfloat16(), half["sample"])


def test_calibration_inputs_differ_from_the_timed_ones():
    timed, other = (inputs("emoji-turbo", 1, torch.float32, "cpu", seed) for seed in (0, 1))
    assert not torch.equal(timed["sample"], other["sample"])


def test_random_weights_are_half_precision_and_complete(folder):
    module = diffusers.UNet2DConditionModel.from_pretrained(folder, dtype=torch.float16)
    assert parameters_of(folder) == sum(p.numel() for p in module.parameters())
    assert all(bool(p.isfinite().all()) for p in module.parameters())


def test_random_weights_are_the_same_every_time(folder, tmp_path):
    write_random(SMALL, tmp_path / "again")
    name = "diffusion_pytorch_model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_flat_denoiser_computes_the_same():
    module = diffusers.UNet2DConditionModel(**SMALL.config, sample_size=8).eval()
    arguments = {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([5, 5]),
        "encoder_hidden_states": torch.randn(2, 3, 8),
        "return_dict": False,
    }
    flat = FlatDenoiser(module, arguments)
    with torch.no_grad():
        found = flat(*flat_tensors(arguments).values())
        assert torch.equal(found, module(**arguments)[0])


def test_arguments_by_position_get_their_names():
    module = diffusers.UNet2DConditionModel(**SMALL.config, sample_size=8)
    text = torch.zeros(2, 3, 8)
    positional = (torch.zeros(2, 4, 8, 8), torch.tensor(7), text)
    found = named(module, positional, {"timestep_cond": None})
    assert found["timestep"].tolist() == [7, 7]
    assert set(found) == {"sample", "timestep", "encoder_hidden_states", "return_dict"}
