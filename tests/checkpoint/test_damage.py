"""A checkpoint that does not match its plan is refused, with the file and what is wrong in it."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

import mezzotint as mz
from mezzotint.errors import CheckpointError, MezzotintError, PlanError
from mezzotint.formats import as_bits
from tests.checkpoint import packed

Opener = Callable[[Path], object]


@pytest.fixture(params=["mezzotint.load", "from_pretrained"])
def opening(request: pytest.FixtureRequest) -> Opener:
    """Both ways to load."""
    if request.param == "mezzotint.load":
        return mz.load
    return lambda folder: UNet2DConditionModel.from_pretrained(folder / "unet")


@pytest.fixture
def weights(saved_copy: Path) -> Path:
    return saved_copy / "unet" / packed.WEIGHTS


def refusal(opening: Opener, folder: Path, kind: type[MezzotintError] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        opening(folder)
    return str(caught.value)


class TestNames:
    @pytest.mark.parametrize("name", ["conv_in.weight_scale", "conv_in.bias", "conv_norm_out.bias"])
    def test_a_missing_tensor(self, opening: Opener, saved_copy: Path, weights: Path, name: str):
        packed.rewrite(weights, **{name: None})
        message = refusal(opening, saved_copy)
        assert message.startswith(f"{weights}: lacks 1 tensor(s): {name};")

    def test_an_extra_tensor(self, opening: Opener, saved_copy: Path, weights: Path):
        packed.rewrite(weights, **{"conv_in.weight_shift": torch.zeros(1)})
        message = refusal(opening, saved_copy)
        assert f"{weights}: holds, against its plan, 1 tensor(s): conv_in.weight_shift" in message

    def test_a_renamed_tensor(self, opening: Opener, saved_copy: Path, weights: Path):
        codes = load_file(weights)["conv_in.weight_codes"]
        packed.rewrite(weights, **{"conv_in.weight_codes": None, "conv_in.weight_code": codes})
        assert "1 tensor(s): conv_in.weight_codes" in refusal(opening, saved_copy)

    def test_many_are_counted_and_a_few_named(
        self, opening: Opener, saved_copy: Path, weights: Path
    ):
        packed.rewrite(weights, **dict.fromkeys(load_file(weights)))
        assert re.search(
            r"lacks \d\d\d tensor\(s\): conv_in\.bias, [\w.]+, [\w.]+ …;",
            refusal(opening, saved_copy),
        )


class TestValues:
    @pytest.mark.parametrize(
        "scale",
        [float("nan"), float("inf"), 0.0, -1.0],
        ids=["nan", "infinite", "zero", "negative"],
    )
    def test_an_impossible_scale(
        self, opening: Opener, saved_copy: Path, weights: Path, scale: float
    ):
        scales = load_file(weights)["conv_out.weight_scale"]
        scales[0] = as_bits(torch.tensor([scale], dtype=torch.bfloat16))
        packed.rewrite(weights, **{"conv_out.weight_scale": scales})
        message = refusal(opening, saved_copy)
        assert message.startswith(f"{weights}: layer conv_out: scale holds values that are not")

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("weight_zero_point", 4, "zero_point holds values that do not fit 2 bits"),
            ("input_zero_point", 8, "input_zero_point is above 7"),
            ("input_scale", -(2**31) + 1, "input_scale is not positive and finite"),
            ("input_scale", 0x7FC00000, "input_scale is not positive and finite"),
        ],
        ids=["weight zero point", "input zero point", "negative input scale", "nan input scale"],
    )
    def test_parameters_out_of_range(self, tmp_path: Path, name: str, value: int, complaint: str):
        packed.packed_unet(mz.Choice("uint2/channel", "uint3/tensor")).save_pretrained(tmp_path)
        stored = load_file(tmp_path / packed.WEIGHTS)[f"conv_in.{name}"]
        packed.rewrite(
            tmp_path / packed.WEIGHTS, **{f"conv_in.{name}": torch.full_like(stored, value)}
        )
        with pytest.raises(CheckpointError, match=f": layer conv_in: {complaint}"):
            UNet2DConditionModel.from_pretrained(tmp_path)

    def test_a_symmetric_input_has_no_zero_point(self, tmp_path: Path):
        packed.packed_unet(mz.Choice("int8/channel", "int8/tensor")).save_pretrained(tmp_path)
        packed.rewrite(
            tmp_path / packed.WEIGHTS,
            **{"conv_in.input_zero_point": torch.ones(1, dtype=torch.uint8)},
        )
        with pytest.raises(CheckpointError, match="input_zero_point is above 0"):
            UNet2DConditionModel.from_pretrained(tmp_path)


class TestTypes:
    def test_a_packed_tensor_of_another_shape(
        self, opening: Opener, saved_copy: Path, weights: Path
    ):
        codes = load_file(weights)["conv_in.weight_codes"]
        packed.rewrite(weights, **{"conv_in.weight_codes": codes[:-1].contiguous()})
        message = refusal(opening, saved_copy)
        assert message.startswith(f"{weights}: conv_in.weight_codes: is torch.uint8 of shape")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
    def test_a_packed_tensor_of_another_dtype(
        self, opening: Opener, saved_copy: Path, weights: Path, dtype: torch.dtype
    ):
        codes = load_file(weights)["conv_in.weight_codes"]
        packed.rewrite(weights, **{"conv_in.weight_codes": codes.to(dtype)})
        message = refusal(opening, saved_copy)
        assert message.startswith(f"{weights}: conv_in.weight_codes: is {dtype} of shape")

    def test_a_truncated_file(self, saved_copy: Path, weights: Path):
        os.truncate(weights, weights.stat().st_size - 1)
        with pytest.raises(CheckpointError, match=f"{weights}: is truncated"):
            mz.load(saved_copy)


class TestPlans:
    def test_of_a_layer_that_is_not_there(self, opening: Opener, saved_copy: Path):
        packed.edit_config(
            saved_copy / "unet",
            lambda config: config["plan"]["layers"].update(nowhere={"weight": "int8/channel"}),
        )
        message = refusal(opening, saved_copy, PlanError)
        assert message.startswith(f"{saved_copy}/unet/config.json: the plan names layer nowhere")

    def test_of_a_future_version(self, opening: Opener, saved_copy: Path):
        packed.edit_config(saved_copy / "unet", lambda config: config["plan"].update(version=99))
        message = refusal(opening, saved_copy, PlanError)
        assert f"{saved_copy}/unet/config.json: quantization_config: plan: field version" in message

    def test_with_an_unknown_format(self, opening: Opener, saved_copy: Path):
        packed.edit_config(
            saved_copy / "unet",
            lambda config: config["plan"]["layers"]["conv_in"].update(weight="int4/galaxy"),
        )
        message = refusal(opening, saved_copy, PlanError)
        assert message.startswith(f"{saved_copy}/unet/config.json: ")
        assert "layer conv_in: unknown weight format 'int4/galaxy'" in message

    def test_with_another_width_than_the_file(self, opening: Opener, saved_copy: Path):
        packed.edit_config(
            saved_copy / "unet",
            lambda config: config["plan"]["layers"]["conv_in"].update(weight="int3/channel"),
        )
        assert "conv_in.weight_codes: is torch.uint8 of shape" in refusal(opening, saved_copy)

    def test_that_leaves_a_packed_layer_floating(self, opening: Opener, saved_copy: Path):
        packed.edit_config(
            saved_copy / "unet",
            lambda config: config["plan"]["layers"].update(conv_in={"weight": "float"}),
        )
        assert "lacks 1 tensor(s): conv_in.weight;" in refusal(opening, saved_copy)

    def test_that_are_absent(self, opening: Opener, saved_copy: Path):
        packed.edit_config(saved_copy / "unet", lambda config: config.pop("plan"))
        message = refusal(opening, saved_copy)
        assert message.startswith(
            f"{saved_copy}/unet/config.json: quantization_config: has no plan"
        )


class TestFloatCheckpoints:
    """Quantized while they load."""

    @pytest.fixture
    def folder(self, float_folder: Path, tmp_path: Path) -> Path:
        UNet2DConditionModel.from_pretrained(float_folder / "unet").save_pretrained(tmp_path)
        return tmp_path

    def refusal(self, folder: Path) -> str:
        with pytest.raises(MezzotintError) as caught:
            UNet2DConditionModel.from_pretrained(folder, quantization_config=mz.MezzotintConfig())
        return str(caught.value)

    def test_a_missing_weight(self, folder: Path):
        packed.rewrite(folder / packed.WEIGHTS, **{"conv_out.weight": None})
        assert "lacks 1 tensor(s): conv_out.weight" in self.refusal(folder)

    def test_a_weight_with_nan(self, folder: Path):
        weight = load_file(folder / packed.WEIGHTS)["conv_out.weight"]
        weight[0] = float("nan")
        packed.rewrite(folder / packed.WEIGHTS, **{"conv_out.weight": weight})
        assert f"{folder / packed.WEIGHTS}: layer conv_out: the weight holds NaN" in self.refusal(
            folder
        )
