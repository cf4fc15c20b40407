"""Layers with constant tokens or a split come back like all others, and are checked like them."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

import mezzotint as mz
from mezzotint.calibration import calibrated
from mezzotint.checkpoint import read_plan
from mezzotint.errors import CheckpointError, PlanError
from mezzotint.formats import as_bits
from mezzotint.models import Sampling, generate, record_calls
from mezzotint.runtime import module_bytes, packed_layers
from tests.checkpoint import packed
from tests.models import tiny

load = UNet2DConditionModel.from_pretrained

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
SHORTCUT = "up_blocks.0.resnets.0.conv_shortcut"


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return packed.structured_unet()


@pytest.fixture(scope="module")
def folder(unet: UNet2DConditionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structure") / "unet"
    unet.save_pretrained(path)
    return path


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(folder, tmp_path / "unet")


def write_shards(folder: Path, *shards: dict[str, torch.Tensor]) -> None:
    """Replace a denoiser's one file by several, read in this order."""
    (folder / packed.WEIGHTS).unlink()
    files = {}
    for number, tensors in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, folder / file)
        files |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": files}
    (folder / f"{packed.WEIGHTS}.index.json").write_text(json.dumps(index))


def structured(model: torch.nn.Module) -> dict[str, int]:
    """Kind of structure → how many layers have it."""
    layers = packed_layers(model).values()
    return dict(Counter(each.kind for layer in layers for each in layer.choice.structures))


class TestRoundTrip:
    def test_the_model_has_both(self, unet: UNet2DConditionModel):
        assert structured(unet) == {"constant_tokens": 8, "split": 4}

    def test_a_fresh_model_is_the_same_bit_for_bit(self, unet: UNet2DConditionModel, folder: Path):
        loaded = load(folder)
        assert structured(loaded) == structured(unet)
        assert packed.same(loaded.state_dict(), unet.state_dict())
        assert torch.equal(packed.run(loaded), packed.run(unet))

    def test_the_plan_comes_back_from_the_config(self, unet: UNet2DConditionModel, folder: Path):
        plan = unet.hf_quantizer.plan
        assert load(folder).hf_quantizer.plan.choices == plan.choices
        assert read_plan(folder) == plan
        assert plan[KEY].structures == (mz.ConstantTokens(1),)
        assert plan[SHORTCUT].structures == (mz.SplitInput(packed.SPLIT),)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_no_dtype_touches_what_is_stored(
        self, unet: UNet2DConditionModel, folder: Path, dtype: torch.dtype
    ):
        loaded = load(folder, dtype=dtype)
        assert packed.same(packed.integers(loaded), packed.integers(unet))
        output, exact = packed.run(loaded, dtype).float(), packed.run(unet)
        assert (output - exact).norm() <= 0.1 * exact.norm()

    def test_shards_come_together(self, unet: UNet2DConditionModel, tmp_path: Path):
        unet.save_pretrained(tmp_path, max_shard_size="100KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert packed.same(load(tmp_path).state_dict(), unet.state_dict())

    def test_offloaded_layers_fetch_all_their_tensors(
        self, unet: UNet2DConditionModel, folder: Path
    ):
        loaded = load(folder)
        accelerate.cpu_offload(loaded, torch.device("cpu"), offload_buffers=True)
        assert all(tensor.is_meta for tensor in loaded.state_dict().values())
        assert torch.equal(packed.run(loaded), packed.run(unet))

    def test_the_bias_keeps_its_name(self, folder: Path):
        names = load_file(folder / packed.WEIGHTS).keys()
        assert {name for name in names if name.startswith(f"{SHORTCUT}.")} >= {
            f"{SHORTCUT}.bias",
            f"{SHORTCUT}.first.weight_codes",
            f"{SHORTCUT}.second.weight_codes",
        }

    def test_memory_and_file_hold_the_same_bytes(self, unet: UNet2DConditionModel, folder: Path):
        stored = packed.tensor_bytes(folder / packed.WEIGHTS)
        assert module_bytes(unet) == module_bytes(load(folder)) == stored

    def test_it_dequantizes_to_a_stock_model(self, folder: Path):
        model = load(folder).dequantize()
        assert [type(m) for m in model.modules()] == [type(m) for m in tiny.tiny_unet().modules()]
        assert model.state_dict().keys() == tiny.tiny_unet().state_dict().keys()
        assert packed.run(model).isfinite().all()

    @pytest.mark.parametrize("version", [1, 2])
    def test_a_checkpoint_of_float32_scales_still_loads(self, version: int, tmp_path: Path):
        wide = (mz.Choice("int4/channel/float32"), mz.Choice("uint3/channel/float32", "int8/token"))
        packed.packed_unet(*wide).save_pretrained(tmp_path)

        def as_once(config: dict[str, Any]) -> None:
            config["plan"]["version"] = version
            if version == 1:
                del config["plan"]["encoding"]
            for layer in config["plan"]["layers"].values():
                layer["weight"] = layer["weight"].removesuffix("/float32")

        packed.edit_config(tmp_path, as_once)
        assert "float32" not in json.dumps(
            json.loads((tmp_path / "config.json").read_text())["quantization_config"]
        )
        assert packed.same(load(tmp_path).state_dict(), packed.packed_unet(*wide).state_dict())

    def test_a_plan_of_version_1_still_loads(self, tmp_path: Path):
        model = tiny.tiny_unet().eval()
        choice = mz.Choice("int4/tensor", "uint8/tensor")
        unet = packed.packed_after(packed.structured_plan(model, choice, checked=False), model)
        damaged = tmp_path / "unet"
        unet.save_pretrained(damaged)

        def as_once(config: dict[str, Any]) -> None:
            config["plan"]["version"] = 1
            del config["plan"]["encoding"]
            for layer in config["plan"]["layers"].values():
                for structure in layer.pop("structures", ()):
                    layer[structure["kind"]] = structure.get("count") or structure["first"]

        packed.edit_config(damaged, as_once)
        assert '"constant_tokens": 1' in (damaged / "config.json").read_text()
        loaded = load(damaged)
        assert packed.same(loaded.state_dict(), unet.state_dict())
        assert loaded.hf_quantizer.plan == unet.hf_quantizer.plan

    def test_a_plan_without_such_fields_still_loads(self, tmp_path: Path):
        # The form of version 0.1: weight, activation and reason only.
        packed.packed_unet().save_pretrained(tmp_path)
        layers = read_plan(tmp_path).to_dict()["layers"].values()
        assert {key for layer in layers for key in layer} == {"weight", "activation"}
        assert packed.same(load(tmp_path).state_dict(), packed.packed_unet().state_dict())


class TestDamage:
    @pytest.mark.parametrize(
        "name", [f"{KEY}.constant", f"{KEY}.others.weight_scale", f"{SHORTCUT}.second.weight_codes"]
    )
    def test_a_missing_tensor(self, damaged: Path, name: str):
        packed.rewrite(damaged / packed.WEIGHTS, **{name: None})
        with pytest.raises(CheckpointError, match=rf"lacks 1 tensor\(s\): {name};"):
            load(damaged)

    @pytest.mark.parametrize("name", [f"{KEY}.weight_codes", f"{SHORTCUT}.third.weight_codes"])
    def test_an_extra_tensor(self, damaged: Path, name: str):
        packed.rewrite(damaged / packed.WEIGHTS, **{name: torch.zeros(1)})
        with pytest.raises(CheckpointError, match=rf"against its plan, 1 tensor\(s\): {name};"):
            load(damaged)

    @pytest.mark.parametrize("name", [f"{KEY}.constant", f"{SHORTCUT}.first.weight_codes"])
    def test_a_tensor_of_another_shape_or_dtype(self, damaged: Path, name: str):
        file = damaged / packed.WEIGHTS
        right = load_file(file)[name]
        for wrong in (right[:, :-1].contiguous(), right.float()):
            packed.rewrite(file, **{name: wrong})
            with pytest.raises(CheckpointError, match=f"{name}: is {wrong.dtype} of shape"):
                load(damaged)

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            (f"{KEY}.constant", torch.nan, f": layer {KEY}: constant holds NaN"),
            (f"{KEY}.constant", torch.inf, f": layer {KEY}: constant holds NaN or infinite"),
            (f"{SHORTCUT}.second.weight_scale", 0.0, f": layer {SHORTCUT}.second: scale holds"),
        ],
        ids=["nan", "infinite", "scale"],
    )
    def test_an_impossible_value(self, tmp_path: Path, name: str, value: float, complaint: str):
        packed.structured_unet(mz.Choice("int4/channel")).save_pretrained(tmp_path)
        stored = load_file(tmp_path / packed.WEIGHTS)[name]
        dtype = torch.bfloat16 if stored.dtype == torch.int16 else torch.float32
        stored[0] = as_bits(torch.tensor([value], dtype=dtype))
        packed.rewrite(tmp_path / packed.WEIGHTS, **{name: stored})
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "structure", "complaint"),
        [
            (
                KEY,
                {"kind": "constant_tokens", "count": 2},
                r"constant: is torch.int32 of shape \(1, 32\)",
            ),
            (
                SHORTCUT,
                {"kind": "split", "first": 24},
                "weight_(codes|scale): is torch.uint8 of shape",
            ),
        ],
    )
    def test_a_plan_of_other_numbers(
        self, tmp_path: Path, name: str, structure: dict[str, Any], complaint: str
    ):
        packed.structured_unet(mz.Choice("int4/channel")).save_pretrained(tmp_path)
        packed.edit_config(
            tmp_path, lambda c: c["plan"]["layers"][name].update(structures=[structure])
        )
        with pytest.raises(CheckpointError, match=complaint):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "structure", "complaint"),
        [
            (SHORTCUT, {"kind": "split", "first": 64}, "first is 64, but there are 64 input"),
            (SHORTCUT, {"kind": "constant_tokens", "count": 1}, "has no constant tokens"),
            (KEY, {"kind": "constant_tokens", "count": -1}, "count is -1; expected a whole"),
            (KEY, {"kind": "constant"}, "unknown structure 'constant'; there are: constant_tokens"),
        ],
    )
    def test_an_impossible_plan(
        self, damaged: Path, name: str, structure: dict[str, Any], complaint: str
    ):
        packed.edit_config(
            damaged, lambda c: c["plan"]["layers"][name].update(structures=[structure])
        )
        with pytest.raises(PlanError, match=rf"config\.json: .*layer {name}: .*{complaint}"):
            load(damaged)


class TestQuantizingWhileLoading:
    @pytest.fixture
    def unet_folder(self, tmp_path: Path) -> Path:
        tiny.tiny_unet().save_pretrained(tmp_path)
        return tmp_path

    def test_a_split_needs_no_data(self, unet_folder: Path):
        plan = mz.Plan(
            {SHORTCUT: mz.Choice("int4/channel", "int8/token", structures=(mz.SplitInput(16),))}
        )
        loaded = load(unet_folder, quantization_config=mz.MezzotintConfig(plan))
        model = packed.packed_after(plan, tiny.tiny_unet().eval())
        assert packed.same(loaded.state_dict(), model.state_dict())

    def test_halves_of_two_formats_come_back(self, unet_folder: Path, tmp_path: Path):
        halves = mz.Choice(
            "kmeans4/channel", "int8/token", (mz.SplitInput(16),), (("second", "uint3/channel"),)
        )
        plan = mz.Plan({SHORTCUT: halves})
        loaded = load(unet_folder, quantization_config=mz.MezzotintConfig(plan))
        model = packed.packed_after(plan, tiny.tiny_unet().eval())
        assert packed.same(loaded.state_dict(), model.state_dict())
        loaded.save_pretrained(tmp_path / "packed")
        again = load(tmp_path / "packed")
        assert read_plan(tmp_path / "packed")[SHORTCUT] == halves
        assert packed.same(again.state_dict(), model.state_dict())
        assert torch.equal(packed.run(again), packed.run(loaded))

    @pytest.mark.parametrize("first", ["weight", "bias"])
    def test_weight_and_bias_may_arrive_in_any_order(self, unet_folder: Path, first: str):
        tensors = load_file(unet_folder / packed.WEIGHTS)
        late = {f"{SHORTCUT}.{'bias' if first == 'weight' else 'weight'}"}
        write_shards(
            unet_folder,
            {name: tensor for name, tensor in tensors.items() if name not in late},
            {name: tensors[name] for name in late},
        )
        plan = mz.Plan({SHORTCUT: mz.Choice("int4/channel", structures=(mz.SplitInput(16),))})
        loaded = load(unet_folder, quantization_config=mz.MezzotintConfig(plan))
        assert torch.equal(loaded.get_submodule(SHORTCUT).bias, tensors[f"{SHORTCUT}.bias"])

    def test_constant_tokens_need_calibration(self, unet_folder: Path):
        plan = mz.Plan({KEY: mz.Choice("int4/channel", structures=(mz.ConstantTokens(1),))})
        with pytest.raises(PlanError, match=rf"layer {KEY}: .*calibrated.*load the model first"):
            load(unet_folder, quantization_config=mz.MezzotintConfig(plan))

    def test_static_halves_need_calibration(self, unet_folder: Path):
        plan = mz.Plan(
            {SHORTCUT: mz.Choice("int8/channel", "uint8/tensor", structures=(mz.SplitInput(16),))}
        )
        with pytest.raises(PlanError, match=rf"layer {SHORTCUT}: .*calibrated.*each of its 2"):
            load(unet_folder, quantization_config=mz.MezzotintConfig(plan))


def test_a_calibrated_pipeline_draws_the_same_images_after_loading(tmp_path: Path):
    pipe = mz.load(tiny.save_few_step(tmp_path / "tiny"))
    sampling = Sampling(("owl", "red fox"))
    calls = record_calls(pipe, sampling)
    plan = packed.structured_plan(pipe.unet, mz.Choice("int8/channel", "uint8/tensor"))
    result = mz.apply(pipe, plan, calibrated(pipe.unet, plan, calls))
    loaded = mz.load(result.save(tmp_path / "packed"))
    left, right = (generate(each, sampling).astype(int) for each in (result.pipeline, loaded))
    assert abs(left - right).max() == 0
