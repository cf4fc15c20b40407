"""diffusers' own expectations of a quantization backend, kind by kind.

They follow the list of `QuantizationTesterMixin` in diffusers' test suite.
"""

import copy
from pathlib import Path

import pytest
import torch
from accelerate.utils import compute_module_sizes
from diffusers import (
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

import mezzotint as mz
from mezzotint.errors import UsageError
from mezzotint.runtime import PackedLayer, module_bytes
from tests.checkpoint import packed
from tests.models import tiny

EXCLUDED = ["mid_block.*"]


@pytest.fixture(scope="session")
def float_unet(float_folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(float_folder / "unet")


@pytest.fixture(params=["while loading", "from a checkpoint", "in memory"])
def model(
    request: pytest.FixtureRequest, float_folder: Path, saved: Path, result: mz.Result
) -> UNet2DConditionModel:
    """The same UNet, quantized in each of the three ways."""
    if request.param == "while loading":
        return load_quantized(float_folder)
    if request.param == "from a checkpoint":
        return UNet2DConditionModel.from_pretrained(saved / "unet")
    return mz.apply(mz.load(float_folder), result.plan).denoiser


def load_quantized(folder: Path, **config) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(
        folder / "unet", quantization_config=mz.MezzotintConfig(weight_bits=4, act_bits=8, **config)
    )


def layers(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


class TestCounting:
    def test_it_has_the_parameters_of_the_float_model(self, model, float_unet):
        assert model.num_parameters() == float_unet.num_parameters()
        assert model.num_parameters(exclude_embeddings=True) == float_unet.num_parameters()

    def test_no_packed_parameter_is_trainable(self, model):
        model.requires_grad_(False)
        assert model.num_parameters(only_trainable=True) == 0

    def test_its_memory_footprint_is_what_it_stores(self, model, float_unet):
        assert model.get_memory_footprint() == module_bytes(model)
        assert float_unet.get_memory_footprint() / model.get_memory_footprint() > 3

    def test_accelerate_counts_stored_bytes_once(self, model):
        assert compute_module_sizes(model)[""] == module_bytes(model)

    def test_a_deep_copy_counts_the_same(self, model):
        assert copy.deepcopy(model).num_parameters() == model.num_parameters()

    def test_dequantized_it_counts_for_itself(self, model, float_unet):
        model.dequantize()
        assert "num_parameters" not in vars(model)
        assert model.num_parameters() == float_unet.num_parameters()


class TestLayers:
    def test_they_are_linear_layers_and_convolutions(self, model, float_unet):
        assert layers(model).keys() == layers(float_unet).keys()
        assert all(isinstance(layer, PackedLayer) for layer in layers(model).values())

    def test_they_have_the_attributes_of_the_layers_replaced(self, model, float_unet):
        for name, layer in layers(float_unet).items():
            quantized = model.get_submodule(name)
            names = (
                ("in_features", "out_features")
                if isinstance(layer, nn.Linear)
                else ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation",
                      "groups", "padding_mode", "transposed", "output_padding")
            )  # fmt: skip
            for attribute in names:
                assert getattr(quantized, attribute) == getattr(layer, attribute), (name, attribute)

    def test_their_weight_has_shape_dtype_and_device(self, model, float_unet):
        for name, layer in layers(float_unet).items():
            weight = model.get_submodule(name).weight
            assert (weight.shape, weight.dtype, weight.device) == (
                layer.weight.shape, torch.float32, layer.weight.device
            )  # fmt: skip

    def test_their_weight_is_the_dequantized_one(self, model):
        layer = model.conv_in
        assert torch.equal(layer.weight.clone(), layer.dequantized_weight())

    def test_their_weight_follows_the_dtype_that_is_loaded(self, saved: Path):
        model = UNet2DConditionModel.from_pretrained(saved / "unet", dtype=torch.bfloat16)
        assert {layer.weight.dtype for layer in layers(model).values()} == {torch.bfloat16}

    def test_they_take_their_input_by_keyword(self, model):
        x = torch.randn(2, model.conv_in.in_channels, 8, 8)
        assert torch.equal(model.conv_in(input=x), model.conv_in(x))

    def test_excluded_layers_are_stock(self, float_folder: Path):
        model = load_quantized(float_folder, modules_to_not_convert=EXCLUDED)
        kinds = {n.startswith("mid_block"): type(m) for n, m in layers(model).items()}
        assert kinds[True] in (nn.Linear, nn.Conv2d)
        assert issubclass(kinds[False], PackedLayer)
        whole = load_quantized(float_folder)
        assert model.get_memory_footprint() > whole.get_memory_footprint()

    def test_the_geometry_of_a_convolution_is_fixed(self, model):
        for name, value in {"padding_mode": "circular", "stride": (2, 2)}.items():
            with pytest.raises(UsageError, match=f"{name}: the geometry of a packed convolution"):
                setattr(model.conv_in, name, value)
        with pytest.raises(UsageError, match="_conv_forward"):
            model.conv_in._conv_forward = None
        copy.deepcopy(model.conv_in)


class TestDtype:
    @pytest.mark.parametrize(
        "cast",
        [
            pytest.param(lambda m: m.to(torch.float16), id="to"),
            pytest.param(lambda m: m.to(device="cpu", dtype=torch.float16), id="to, by keyword"),
            pytest.param(lambda m: m.half(), id="half"),
            pytest.param(lambda m: m.float(), id="float"),
        ],
    )
    def test_casting_is_refused(self, model, cast):
        with pytest.raises(ValueError, match=r"[Cc]ast|dtype"):
            cast(model)

    def test_moving_is_not(self, model):
        assert model.to("cpu") is model

    def test_the_dtype_before_quantization_is_recorded(self, model):
        assert model.config["_pre_quantization_dtype"] == torch.float32

    def test_casting_the_pipeline_names_the_way(self, saved: Path):
        pipe = DiffusionPipeline.from_pretrained(saved)
        with pytest.raises(ValueError, match=r"Load it with dtype=torch\.bfloat16"):
            pipe.to(torch.bfloat16)


class TestConfig:
    def test_it_is_the_config_object(self, model):
        config = model.config.quantization_config
        assert isinstance(config, mz.MezzotintConfig)
        assert config.to_dict() == config.to_diff_dict()
        assert '"mezzotint"' in config.to_json_string()

    def test_it_is_written_as_json(self, model, tmp_path: Path):
        model.save_pretrained(tmp_path)
        again = UNet2DConditionModel.from_pretrained(tmp_path)
        assert (
            again.config.quantization_config.to_dict() == model.config.quantization_config.to_dict()
        )
        assert torch.equal(packed.run(again), packed.run(model))

    def test_dequantized_it_is_gone(self, model):
        model.dequantize()
        assert not {"quantization_config", "_pre_quantization_dtype"} & model.config.keys()


class TestPipelines:
    def test_another_pipeline_shares_the_packed_model(self, saved: Path):
        pipe = DiffusionPipeline.from_pretrained(saved)
        other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
        assert other.unet is pipe.unet
        assert other.unet.is_quantized

    def test_another_pipeline_of_a_second_dtype_names_the_way(self, saved: Path):
        pipe = DiffusionPipeline.from_pretrained(saved, dtype=torch.bfloat16)
        with pytest.raises(ValueError, match=r"as it is with dtype=torch\.bfloat16"):
            StableDiffusionImg2ImgPipeline.from_pipe(pipe)
        other = StableDiffusionImg2ImgPipeline.from_pipe(pipe, dtype=torch.bfloat16)
        assert other.unet is pipe.unet

    def test_it_moves_with_its_pipeline(self, saved: Path):
        pipe = DiffusionPipeline.from_pretrained(saved)
        assert pipe.to("cpu").unet.is_quantized

    @pytest.mark.parametrize("device_map", ["auto", "cpu"])
    def test_a_device_map_places_it(self, saved: Path, device_map: str):
        model = UNet2DConditionModel.from_pretrained(saved / "unet", device_map=device_map)
        assert model.hf_device_map is not None
        assert model.device.type == "cpu"
        assert packed.run(model).isfinite().all()


class LowRankBranch(nn.Module):
    """A layer with a trainable branch beside it, as a training script writes it by hand."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, 4, bias=False)
        self.up = nn.Linear(4, layer.out_features, bias=False)
        self.down.to(layer.weight.device)

    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        return self.layer(x, *args, **kwargs) + self.up(self.down(x))


def test_hand_written_adapters_are_trained_under_autocast(model):
    model.requires_grad_(False)
    branches = []
    for _, module in list(model.named_modules()):
        if type(module).__name__ == "Attention":
            for name in ("to_q", "to_k", "to_v"):
                branches.append(LowRankBranch(getattr(module, name)))
                setattr(module, name, branches[-1])
    assert branches
    text = torch.randn(1, 5, tiny.TEXT_WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(1, 4, 8, 8), torch.tensor(500), text, return_dict=False)[0]
    y.float().norm().backward()
    assert all(branch.up.weight.grad.norm() > 0 for branch in branches)


def test_projections_that_are_fused_are_the_dequantized_ones(model):
    before = packed.run(model)
    model.fuse_qkv_projections()
    torch.testing.assert_close(packed.run(model), before, rtol=0.05, atol=0.05)


def test_a_single_file_is_packed_while_it_loads(float_folder: Path):
    config = mz.MezzotintConfig(weight_bits=4, act_bits=8)
    file = next((float_folder / "unet").glob("*.safetensors"))
    model = UNet2DConditionModel.from_single_file(
        str(file), config=str(float_folder), subfolder="unet", quantization_config=config
    )
    expected = load_quantized(float_folder)
    assert packed.same(model.state_dict(), expected.state_dict())
    assert model.num_parameters() == expected.num_parameters()
    assert model.config["_pre_quantization_dtype"] == torch.float32
