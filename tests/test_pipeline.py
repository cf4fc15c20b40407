"""Loading, packing after a plan, and saving, as users call them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint.checkpoint import read_plan
from mezzotint.errors import FormatError, ModelError, PlanError, UsageError
from mezzotint.models import model_name
from mezzotint.runtime import packed_layers
from tests.models import tiny

SAMPLING = mz.Sampling(("owl", "red fox"), steps=2, guidance=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A floating-point pipeline; read only."""
    return tiny.save_few_step(tmp_path_factory.mktemp("pipeline") / "tiny")


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture
def plan(pipe: DiffusionPipeline) -> mz.Plan:
    return mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


class Clones(TorchDispatchMode):
    """Numbers of elements of all floating tensors copied meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.clone.default and args[0].is_floating_point():
            self.sizes.append(args[0].numel())
        return function(*args, **(kwargs or {}))


class TestLoad:
    def test_a_folder(self, pipe: DiffusionPipeline):
        assert isinstance(pipe, StableDiffusionPipeline)
        assert pipe.unet.dtype == torch.float32

    def test_the_defaults_of_the_folder_hold(self, pipe: DiffusionPipeline):
        calls: list[int] = []
        pipe.unet.register_forward_hook(lambda *_: calls.append(1))
        pipe("owl")
        assert len(calls) == 2
        pipe("owl", num_inference_steps=1)
        assert len(calls) == 3

    def test_a_dtype(self, folder: Path):
        assert mz.load(folder, dtype=torch.bfloat16).unet.dtype == torch.bfloat16

    def test_a_quantized_folder(self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path):
        result = mz.apply(pipe, plan)
        loaded = mz.load(result.save(tmp_path / "out"))
        assert packed_layers(loaded.unet).keys() == plan.quantized.keys()
        assert equal(state(loaded.unet), state(result.denoiser))
        images = mz.generate(loaded, SAMPLING)
        assert np.array_equal(images, mz.generate(result.pipeline, SAMPLING))

    def test_a_quantized_folder_in_bfloat16(
        self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path
    ):
        folder = mz.apply(pipe, plan).save(tmp_path / "out")
        loaded = mz.load(folder, dtype=torch.bfloat16)
        assert {p.dtype for p in loaded.unet.parameters()} == {torch.bfloat16}
        assert mz.generate(loaded, SAMPLING).std() > 1

    def test_what_is_not_there(self):
        with pytest.raises(ModelError, match="no such folder"):
            mz.load("/nowhere/at/all")


class TestApply:
    def test_every_layer_of_the_plan_is_packed_as_it_says(
        self, pipe: DiffusionPipeline, plan: mz.Plan
    ):
        layers = packed_layers(mz.apply(pipe, plan).denoiser)
        assert {name: layer.choice for name, layer in layers.items()} == plan.quantized

    def test_layers_that_stay_floating_are_stock(self, pipe: DiffusionPipeline, plan: mz.Plan):
        mixed = mz.Plan({**plan.choices, "conv_in": mz.Choice()})
        assert type(mz.apply(pipe, mixed).denoiser.conv_in) is nn.Conv2d

    def test_the_images_change_but_little(self, pipe: DiffusionPipeline):
        result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=8))
        before, after = mz.generate(pipe, SAMPLING), mz.generate(result.pipeline, SAMPLING)
        difference = np.abs(before.astype(int) - after.astype(int))
        assert 0 < difference.max() <= 8

    def test_the_original_is_untouched(self, pipe: DiffusionPipeline, plan: mz.Plan):
        modules, before = dict(pipe.unet.named_modules()), state(pipe.unet)
        images = mz.generate(pipe, SAMPLING)
        mz.apply(pipe, plan)
        assert all(modules[name] is module for name, module in pipe.unet.named_modules())
        assert equal(state(pipe.unet), before)
        assert "quantization_config" not in pipe.unet.config
        assert np.array_equal(mz.generate(pipe, SAMPLING), images)

    def test_the_result_has_tensors_of_its_own(self, pipe: DiffusionPipeline, plan: mz.Plan):
        before = state(pipe.unet)
        with torch.no_grad():
            for parameter in mz.apply(pipe, plan).denoiser.parameters():
                parameter.zero_()
        assert equal(state(pipe.unet), before)

    def test_all_but_the_denoiser_is_shared(self, pipe: DiffusionPipeline, plan: mz.Plan):
        quantized = mz.apply(pipe, plan).pipeline
        assert type(quantized) is type(pipe)
        different = [
            n for n, part in pipe.components.items() if quantized.components[n] is not part
        ]
        assert different == ["unet"]

    def test_weights_to_be_packed_are_not_copied(self, pipe: DiffusionPipeline, plan: mz.Plan):
        weights = [pipe.unet.get_parameter(f"{name}.weight").numel() for name in plan.quantized]
        with Clones() as clones:
            mz.apply(pipe, plan)
        assert max(clones.sizes) < min(weights)

    def test_a_quantized_pipeline_is_refused(self, pipe: DiffusionPipeline, plan: mz.Plan):
        result = mz.apply(pipe, plan)
        with pytest.raises(UsageError, match="unet is quantized already; start from the original"):
            mz.apply(result.pipeline, plan)

    def test_a_loaded_quantized_pipeline_too(
        self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path
    ):
        loaded = mz.load(mz.apply(pipe, plan).save(tmp_path / "out"))
        with pytest.raises(UsageError, match="quantized already"):
            mz.apply(loaded, plan)

    @pytest.mark.parametrize(
        ("choices", "complaint"),
        [
            ({"nowhere": mz.Choice("int8/channel")}, "names layer nowhere"),
            ({"conv_norm_out": mz.Choice("int8/channel")}, "layer conv_norm_out is a GroupNorm"),
        ],
        ids=["unknown", "unsupported"],
    )
    def test_a_plan_that_does_not_fit_changes_nothing(
        self, pipe: DiffusionPipeline, choices: dict[str, mz.Choice], complaint: str
    ):
        with pytest.raises(PlanError, match=complaint):
            mz.apply(pipe, mz.Plan({"conv_in": mz.Choice("int8/channel"), **choices}))
        assert not packed_layers(pipe.unet)

    def test_weights_with_nan_name_the_layer(self, pipe: DiffusionPipeline, plan: mz.Plan):
        pipe.unet.conv_out.weight.data[0] = float("nan")
        with pytest.raises(FormatError, match=r"layer conv_out: .*NaN"):
            mz.apply(pipe, plan)


class TestQuantizeDenoiser:
    def test_it_packs_in_place(self):
        unet = tiny.tiny_unet()
        assert mz.quantize_denoiser(unet, weight_bits=4, act_bits=8) is unet
        choices = {layer.choice for layer in packed_layers(unet).values()}
        assert choices == {mz.Choice("int4/channel", "int8/token")}

    def test_it_equals_applying_the_uniform_plan(self, pipe: DiffusionPipeline, plan: mz.Plan):
        applied = mz.apply(pipe, plan).denoiser
        mz.quantize_denoiser(pipe.unet, weight_bits=4, act_bits=8)
        assert equal(state(pipe.unet), state(applied))

    def test_excluded_layers_stay(self):
        unet = mz.quantize_denoiser(tiny.tiny_unet(), exclude=("conv_in", "re:conv_o.*"))
        assert type(unet.conv_in) is type(unet.conv_out) is nn.Conv2d

    def test_the_model_saves_by_itself(self, tmp_path: Path):
        unet = mz.quantize_denoiser(tiny.tiny_unet())
        unet.save_pretrained(tmp_path)
        assert equal(state(type(unet).from_pretrained(tmp_path)), state(unet))

    def test_any_module_will_do(self):
        module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        assert packed_layers(mz.quantize_denoiser(module)).keys() == {"0", "2"}


class TestResult:
    def test_it_saves_to_a_folder_and_returns_it(
        self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path
    ):
        folder = mz.apply(pipe, plan).save(tmp_path / "deep" / "out")
        assert folder == tmp_path / "deep" / "out"
        assert read_plan(folder) == plan

    def test_it_saves_the_measurements(
        self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path
    ):
        record = Record({"model": "abc"}, {"conv_in | int4/channel | float": {"noise": 0.25}})
        folder = replace(mz.apply(pipe, plan), record=record).save(tmp_path / "out")
        assert Record.read(folder / "measurements.jsonl") == record

    def test_the_pipeline_keeps_its_defaults_when_saved_and_loaded(
        self, pipe: DiffusionPipeline, plan: mz.Plan, tmp_path: Path
    ):
        loaded = mz.load(mz.apply(pipe, plan).save(tmp_path / "out"))
        calls: list[int] = []
        loaded.unet.register_forward_hook(lambda *_: calls.append(1))
        loaded("owl")
        assert len(calls) == 2


class TestName:
    def test_of_a_loaded_pipeline(self, pipe: DiffusionPipeline):
        assert model_name(pipe) == "tiny"

    def test_of_a_pipeline_from_memory(self):
        assert model_name(tiny.tiny_stable_diffusion()) == "StableDiffusionPipeline"
