"""Layers with a scale for each timestep come back, read their timestep, and are checked."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import accelerate
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

import mezzotint as mz
from mezzotint.checkpoint import mark_quantized
from mezzotint.errors import CheckpointError, PlanError
from mezzotint.formats import as_bits
from mezzotint.runtime import Calibration, TimestepReader, module_bytes, pack_module
from tests.checkpoint import packed
from tests.models import tiny
from tests.runtime.stepped import STEPS, step_tables

load = UNet2DConditionModel.from_pretrained


def stepped_plan(model: UNet2DConditionModel) -> mz.Plan:
    return packed.plan_of(model, mz.Choice("int4/channel", "uint4/step", (STEPS,)))


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    model = tiny.tiny_unet().eval()
    plan = stepped_plan(model)
    pack_module(model, plan, Calibration(tensors=dict.fromkeys(plan.choices, step_tables())))
    mark_quantized(model, plan)
    return model


@pytest.fixture(scope="module")
def folder(unet: UNet2DConditionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("steps") / "unet"
    unet.save_pretrained(path)
    return path


@torch.no_grad()
def outputs(model: UNet2DConditionModel) -> Tensor:
    """Predictions at two timesteps."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 5, tiny.TEXT_WIDTH, generator=generator)
    return torch.stack([model(latent, t, text).sample for t in (900, torch.tensor([10]))])


WAYS: dict[str, Callable[[Path], UNet2DConditionModel]] = {
    "loaded": load,
    "copied": lambda folder: copy.deepcopy(load(folder)),
    "moved": lambda folder: load(folder).to("cpu"),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_reads_its_timestep_wherever_it_comes_from(
    unet: UNet2DConditionModel, folder: Path, way: str
):
    found = WAYS[way](folder)
    assert torch.equal(outputs(found), outputs(unet))
    first, second = outputs(found)
    assert not torch.equal(first, second)


def test_it_reads_it_while_its_layers_are_offloaded(unet: UNet2DConditionModel, folder: Path):
    loaded = load(folder)
    accelerate.cpu_offload(loaded, torch.device("cpu"), offload_buffers=True)
    assert torch.equal(outputs(loaded), outputs(unet))


def test_saved_again_it_is_the_same(folder: Path, tmp_path: Path):
    loaded = load(folder)
    outputs(loaded)
    loaded.save_pretrained(tmp_path)
    assert (tmp_path / packed.WEIGHTS).read_bytes() == (folder / packed.WEIGHTS).read_bytes()


def test_memory_and_file_hold_the_same_bytes(unet: UNet2DConditionModel, folder: Path):
    assert module_bytes(unet) == packed.tensor_bytes(folder / packed.WEIGHTS)


def test_dequantized_it_is_a_stock_model(folder: Path):
    model = load(folder).dequantize()
    assert TimestepReader.of(model) is None
    assert [type(m) for m in model.modules()] == [type(m) for m in tiny.tiny_unet().modules()]


def test_its_tables_cannot_be_made_while_loading(tmp_path: Path):
    tiny.tiny_unet().save_pretrained(tmp_path)
    config = mz.MezzotintConfig(stepped_plan(tiny.tiny_unet()))
    complaint = r"layer conv_in: step_scales needs its calibrated .*load the model first"
    with pytest.raises(PlanError, match=complaint):
        load(tmp_path, quantization_config=config)


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("timestep", as_bits(torch.tensor([3.0, 2.0, 1.0])), "timestep does not rise"),
        ("step_scale", as_bits(torch.tensor([1.0, 0.0, 1.0])), "step_scale holds values that are"),
        (
            "step_zero_point",
            torch.tensor([0, 16, 0], dtype=torch.uint8),
            "step_zero_point is above 15, the highest of uint4/step",
        ),
    ],
    ids=["timestep", "scale", "zero point"],
)
def test_damaged_tables_are_named(
    folder: Path, tmp_path: Path, name: str, tensor: Tensor, complaint: str
):
    damaged = shutil.copytree(folder, tmp_path / "unet")
    packed.rewrite(damaged / packed.WEIGHTS, **{f"conv_in.{name}": tensor})
    with pytest.raises(CheckpointError, match=f"layer conv_in: {complaint}"):
        load(damaged)


def test_tables_of_other_steps_do_not_belong_to_the_plan(folder: Path, tmp_path: Path):
    damaged = shutil.copytree(folder, tmp_path / "unet")
    short = load_file(damaged / packed.WEIGHTS)["conv_in.timestep"][:2]
    packed.rewrite(damaged / packed.WEIGHTS, **{"conv_in.timestep": short})
    with pytest.raises(CheckpointError, match=r"conv_in.timestep: is .*they do not belong"):
        load(damaged)


class TestFromDiskToDisk:
    @pytest.fixture
    def floating(self, tmp_path: Path) -> Path:
        tiny.tiny_unet().save_pretrained(tmp_path / "floating")
        return tmp_path / "floating"

    def test_a_packed_folder_gives_its_tables(self, floating: Path, folder: Path, tmp_path: Path):
        mz.quantize_checkpoint(floating, tmp_path / "packed", plan=folder)
        written = load_file(tmp_path / "packed" / packed.WEIGHTS)
        assert packed.same(written, load_file(folder / packed.WEIGHTS))

    def test_calls_give_tables_too(self, floating: Path, tmp_path: Path):
        generator = torch.Generator().manual_seed(0)
        calls = [
            mz.Call(
                (
                    torch.randn(2, 4, 8, 8, generator=generator),
                    torch.tensor(t),
                    torch.randn(2, 5, tiny.TEXT_WIDTH, generator=generator),
                ),
                {},
            )
            for t in (900, 10, 500)
        ]
        plan = stepped_plan(tiny.tiny_unet())
        target = tmp_path / "packed"
        mz.quantize_checkpoint(floating, target, plan=mz.PlanWithCalls(plan, calls))
        found = load(target)
        assert found.conv_in.own_tensors["timestep"].tolist() == sorted(
            as_bits(torch.tensor([10.0, 500.0, 900.0])).tolist()
        )
        first, second = outputs(found)
        assert not torch.equal(first, second)
