"""K-means and mixed-width weights travel through checkpoints like all others."""

import functools
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import CheckpointError, PlanError
from mezzotint.formats import as_bits, parse_weight_format
from mezzotint.report import layer_rows, role_rows
from mezzotint.runtime import executions, module_bytes, packed_layers
from tests.checkpoint import packed
from tests.checkpoint.test_footprint import resident_bytes
from tests.models import tiny

#: Taken in turn; `mixed` and `umixed` stand for the mixture that fits the layer.
TURNS = (
    ("kmeans4/channel", "float"),
    ("mixed", "int8/token"),
    ("kmeans3/tensor", "uint8/tensor"),
    ("umixed", "float"),
    ("kmeans8/channel", "int8/token"),
    ("mixed", "uint8/tensor"),
    ("lut4/channel", "uint8/token"),
)


def mixture(rows: int, symmetric: bool) -> str:
    """A quarter of the channels at two bits (or two levels), a quarter at four, others at three."""
    quarter = rows // 4
    few, kind = ("int2", "int") if symmetric else ("kmeans1", "uint")
    return f"mixed/{few}:{quarter},{kind}3:{rows - 2 * quarter},{kind}4:{quarter}"


def plan_for(model: nn.Module, turns: tuple[tuple[str, str], ...] = TURNS) -> mz.Plan:
    choices = {}
    names = mz.uniform_plan(model, weight_bits=8)
    for name, (turn, activation) in zip(names, itertools.cycle(turns), strict=False):
        rows = len(model.get_submodule(name).weight)
        weight = mixture(rows, turn == "mixed") if turn.endswith("mixed") else turn
        choices[name] = mz.Choice(weight, activation)
    return mz.Plan(choices)


def structured(plan: mz.Plan, model: nn.Module) -> mz.Plan:
    """The same formats, with constant tokens and splits wherever MixDQ has them."""
    return packed.structured_plan(model, *plan.choices.values())


@pytest.fixture(scope="module", params=["plain", "structured"])
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    """Packed with both formats; read only."""
    model = tiny.tiny_unet().eval()
    plan = plan_for(model)
    return packed.packed_after(structured(plan, model) if request.param != "plain" else plan, model)


@pytest.fixture(scope="module")
def folder(unet: UNet2DConditionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved; read only."""
    path = tmp_path_factory.mktemp("formats") / "unet"
    unet.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a denoiser whose layers all take one weight format; read only."""

    @functools.cache
    def folder_of(weight: str) -> Path:
        path = tmp_path_factory.mktemp("formats") / "unet"
        model = tiny.tiny_unet().eval()
        packed.packed_after(plan_for(model, ((weight, "float"),)), model).save_pretrained(path)
        return path

    return folder_of


@pytest.fixture
def saved(originals: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The same, to damage."""
    return lambda weight: shutil.copytree(originals(weight), tmp_path / "unet")


def test_every_layer_comes_back_bit_for_bit(unet: UNet2DConditionModel, folder: Path):
    loaded = UNet2DConditionModel.from_pretrained(folder)
    assert packed.same(dict(loaded.state_dict()), dict(unet.state_dict()))
    assert torch.equal(packed.run(loaded), packed.run(unet))
    assert read_plan(folder) == loaded.hf_quantizer.plan
    assert loaded.hf_quantizer.plan.choices == unet.hf_quantizer.plan.choices


def test_memory_and_file_hold_the_bytes_of_the_formats(unet: UNet2DConditionModel, folder: Path):
    loaded = UNet2DConditionModel.from_pretrained(folder)
    stored = packed.tensor_bytes(folder / packed.WEIGHTS)
    assert resident_bytes(unet) == pytest.approx(stored, rel=0.02)
    assert resident_bytes(loaded) == pytest.approx(stored, rel=0.02)
    assert module_bytes(loaded) == stored


@pytest.mark.parametrize("weight", ["kmeans4/channel", "kmeans3/tensor", "mixed", "umixed"])
def test_packed_bytes_are_those_that_the_format_claims(
    originals: Callable[[str], Path], weight: str
):
    loaded = UNet2DConditionModel.from_pretrained(originals(weight))
    original = tiny.tiny_unet()
    floating, claimed = module_bytes(original), 0
    for name, choice in loaded.hf_quantizer.plan.choices.items():
        plain = original.get_submodule(name).weight
        floating -= 4 * plain.numel()
        claimed += parse_weight_format(choice.weight).stored_bytes(tuple(plain.shape))
    assert module_bytes(loaded) == floating + claimed


def test_a_pipeline_is_quantized_saved_and_loaded(tmp_path: Path):
    pipe = mz.load("emoji-turbo")
    weights = (("kmeans4/channel", "float"), ("kmeans3/tensor", "float"), ("mixed", "int8/token"))
    plan = plan_for(pipe.unet, weights)
    result = mz.apply(pipe, plan)
    loaded = mz.load(result.save(tmp_path / "small"))
    assert packed.same(dict(loaded.unet.state_dict()), dict(result.denoiser.state_dict()))
    assert read_plan(tmp_path / "small").choices == plan.choices
    assert len(packed_layers(loaded.unet)) == len(plan)


def test_both_formats_run_and_stay_close_to_the_original():
    original, model = tiny.tiny_unet().eval(), tiny.tiny_unet().eval()
    wide = (("kmeans8/channel", "float"), ("kmeans8/tensor", "float"))
    packed.packed_after(plan_for(model, wide), model)
    reference = packed.run(original)
    assert float((packed.run(model) - reference).norm() / reference.norm()) < 0.05


def test_tables_and_report_know_them(unet: UNet2DConditionModel):
    original, plan = tiny.tiny_unet(), unet.hf_quantizer.plan
    layers = [layer for layer in mz.inventory(original) if layer.name in plan.choices]
    rows = layer_rows(layers, plan, {}, executions(unet))
    assert {row.bits for row in rows} == {2.75, 3.0, 4.0, 8.0}
    assert sum(len(role.shares) for role in role_rows(rows)) > 0
    assert "kmeans4/channel" in str(plan)


class TestDamage:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "infinite"])
    def test_a_codebook_that_is_not_finite(self, saved: Callable[[str], Path], value: float):
        folder = saved("kmeans4/channel")
        file = folder / packed.WEIGHTS
        codebook = load_file(file)["conv_out.weight_codebook"]
        codebook[0, 3] = as_bits(torch.tensor(value, dtype=torch.bfloat16))
        packed.rewrite(file, **{"conv_out.weight_codebook": codebook})
        with pytest.raises(CheckpointError, match=r": layer conv_out: codebook holds values"):
            UNet2DConditionModel.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("weight_order", "order is not a permutation of the 4 output channels"),
            ("weight_scale2", "segment 2, int4/channel: scale holds values"),
        ],
    )
    def test_a_mixture_of_impossible_values(
        self, saved: Callable[[str], Path], name: str, complaint: str
    ):
        folder = saved("mixed")
        file = folder / packed.WEIGHTS
        tensor = load_file(file)[f"conv_out.{name}"]
        packed.rewrite(file, **{f"conv_out.{name}": torch.zeros_like(tensor)})
        with pytest.raises(CheckpointError, match=f": layer conv_out: {complaint}"):
            UNet2DConditionModel.from_pretrained(folder)

    @pytest.mark.parametrize(
        ("weight", "name"),
        [
            ("kmeans4/channel", "weight_codebook"),
            ("mixed", "weight_codes1"),
            ("mixed", "weight_order"),
        ],
    )
    def test_a_missing_tensor(self, saved: Callable[[str], Path], weight: str, name: str):
        folder = saved(weight)
        file = folder / packed.WEIGHTS
        packed.rewrite(file, **{f"conv_in.{name}": None})
        with pytest.raises(CheckpointError, match=f"lacks 1 tensor.*conv_in.{name}"):
            UNet2DConditionModel.from_pretrained(folder)

    def test_a_plan_of_another_granularity(self, saved: Callable[[str], Path]):
        folder = saved("kmeans4/channel")
        packed.edit_config(
            folder,
            lambda config: config["plan"]["layers"]["conv_in"].update(weight="kmeans4/tensor"),
        )
        with pytest.raises(
            CheckpointError, match=r"conv_in\.weight_codebook: is torch.int16 of sha"
        ):
            UNet2DConditionModel.from_pretrained(folder)

    def test_a_plan_whose_counts_do_not_fit_the_layer(self, saved: Callable[[str], Path]):
        folder = saved("mixed")
        packed.edit_config(
            folder,
            lambda config: config["plan"]["layers"]["conv_out"].update(
                weight="mixed/int2:1,int3:1,int4:1"
            ),
        )
        with pytest.raises(PlanError) as caught:
            UNet2DConditionModel.from_pretrained(folder)
        message = str(caught.value)
        assert message.startswith(f"{folder}/config.json: layer conv_out: mixed/int2:1")
        assert "holds 3 output channels" in message
        assert "has 4; name counts that sum to 4" in message
