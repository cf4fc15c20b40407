"""A plan decides the stored bytes, whichever way a model is packed after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import nn
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.calibration import needs_calibration
from mezzotint.checkpoint import read_plan
from mezzotint.cli import app
from mezzotint.errors import CalibrationError, PlanError
from mezzotint.formats import MINMAX, MSE, RangeSearch
from mezzotint.plan import CalibrationSettings
from mezzotint.runtime import Calibration, GridValues
from tests.models import tiny

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
CONFIG = Path("unet", "config.json")

#: Several calls to average over, and other words than the default prompts.
SAMPLING = mz.Sampling(("red heart", "owl", "apple"), seed=5, steps=2, batch=2)
SAME_WORD = mz.Sampling(("red heart", "red apple"), seed=5)

SEARCH = RangeSearch(steps=5, lowest=0.6, power=2.4)
MIXED = mz.Choice("mixed/int2:2,int4:2")


@pytest.fixture(scope="module")
def floating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float pipeline; read only."""
    folder = tmp_path_factory.mktemp("plans") / "tiny"
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\napple\n")
    return folder


NEAREST = {"rounding": "nearest", "bias_correction": "never", "bos": False, "smoothing": False}


BRIEF = {"probes": 8, "regret": 1e9, "exchanges": False}
"""Options of `auto` that decide how long it looks for a plan, not what stands in one."""


def auto(pipe: DiffusionPipeline, **options: object) -> mz.Result:
    recipe = mz.Auto(formats=("int3/channel", "uint6/group16"), **BRIEF, **options)
    sampling = SAMPLING if options.get("bos") is not False else None
    return mz.quantize(pipe, recipe, mz.Budget(6), sampling=sampling)


def mixdq(pipe: DiffusionPipeline, split: str, **options: object) -> mz.Result:
    recipe = mz.MixDQ(split=split, selection_prompts=1, joint_plans=2, **options)
    return mz.quantize(pipe, recipe, mz.Budget(6), sampling=SAMPLING)


def uniform(pipe: DiffusionPipeline) -> mz.Result:
    return mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8))


def mixed_encodings(pipe: DiffusionPipeline) -> mz.Result:
    plan = mz.uniform_plan(pipe.unet, weight_bits=3)
    choices = {**plan.choices, "conv_out": MIXED}
    others = {"conv_in": mz.Encoding(SEARCH), "conv_out": mz.Encoding(MINMAX, order="stored")}
    return mz.apply(pipe, mz.Plan(choices, encodings=others))


def feedback(pipe: DiffusionPipeline) -> mz.Result:
    """Some layers know what they multiply, with and without a corrected bias, and one does not."""
    encoding = mz.Encoding(MINMAX, "feedback", bias_correction=True)
    others = {
        "conv_in": mz.Encoding(MINMAX, bias_correction=True),
        "conv_out": mz.Encoding(MINMAX),
        "time_embedding.linear_1": mz.Encoding(MINMAX, "feedback"),
    }
    choices = dict(mz.uniform_plan(pipe.unet, weight_bits=3, act_bits=8).choices)
    choices["conv_out"] = MIXED
    shortcut = "up_blocks.0.resnets.0.conv_shortcut"
    other = (("second", "kmeans2/channel"),)
    choices[shortcut] = mz.Choice("int3/channel", "uint8/tensor", (mz.SplitInput(8),), other)
    plan = mz.Plan(choices, encoding=encoding, encodings=others)
    return mz.apply(pipe, plan, sampling=SAMPLING)


def halves(pipe: DiffusionPipeline) -> mz.Result:
    """The halves of the split inputs have weights of two formats."""
    choices = dict(mz.uniform_plan(pipe.unet, weight_bits=4).choices)
    for name, second in (("conv1", "kmeans3/tensor"), ("conv_shortcut", "uint3/channel")):
        choices[f"up_blocks.0.resnets.0.{name}"] = mz.Choice(
            "kmeans4/channel", "uint8/token", (mz.SplitInput(8),), (("second", second),)
        )
    return mz.apply(pipe, mz.Plan(choices))


def stepped(pipe: DiffusionPipeline) -> mz.Result:
    """Inputs have a scale for each step, beside constant tokens, in halves, and alone."""
    steps = mz.StepScales(2)
    formats = "int3/channel", "uint4/step"
    names = mz.uniform_plan(pipe.unet, weight_bits=3).choices
    choices = {name: mz.Choice(*formats, (steps,)) for name in names}
    for name in names:
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            choices[name] = mz.Choice(*formats, (mz.ConstantTokens(1), steps))
    choices["up_blocks.0.resnets.0.conv_shortcut"] = mz.Choice(*formats, (mz.SplitInput(8), steps))
    choices["conv_in"] = mz.Choice("int8/channel", "uint8/tensor")
    return mz.apply(pipe, mz.Plan(choices), sampling=SAMPLING)


def smoothed(pipe: DiffusionPipeline) -> mz.Result:
    """Alone and within others, with inputs of every kind, and with what looks at inputs."""
    block = "up_blocks.0.attentions.0.transformer_blocks.0"
    inner = (mz.Smoothing(),)
    plan = mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8)
    choices = {
        **plan.choices,
        "conv_in": mz.Choice("int3/channel", structures=inner),
        "conv_out": mz.Choice("int3/channel", "int8/token", inner),
        f"{block}.attn1.to_q": mz.Choice("uint4/group4", "uint8/tensor", inner),
        f"{block}.attn1.to_k": mz.Choice("lut3/channel", "int8/token", inner),
        f"{block}.attn2.to_k": mz.Choice(
            "int4/channel", "uint8/token", (mz.ConstantTokens(), *inner)
        ),
        "up_blocks.0.resnets.0.conv_shortcut": mz.Choice(
            "int3/channel", "uint8/tensor", (mz.SplitInput(8), *inner)
        ),
    }
    encodings = {
        name: mz.Encoding(MINMAX, "feedback", bias_correction=True)
        for name in ("conv_in", "up_blocks.0.resnets.0.conv_shortcut")
    }
    return mz.apply(pipe, mz.Plan(choices, encodings=encodings), sampling=SAMPLING)


@dataclass(frozen=True)
class Way:
    """A way to a plan, and whether something in it must be calibrated."""

    name: str
    run: Callable[[DiffusionPipeline], mz.Result]
    calibrates: bool


WAYS = (
    Way("auto", auto, True),
    Way(
        "auto-static",
        lambda pipe: auto(pipe, activation="uint8/tensor", search=MINMAX, calls=3),
        True,
    ),
    Way(
        "auto-plain",
        lambda pipe: auto(pipe, search=SEARCH, **NEAREST),
        False,
    ),
    Way("mixdq-sweep", lambda pipe: mixdq(pipe, "sweep"), True),
    Way("mixdq-joint", lambda pipe: mixdq(pipe, "joint", momentum=0.5), True),
    Way(
        "mixdq-plain",
        lambda pipe: mixdq(pipe, "none", bos=False, activation="token", rounding="nearest"),
        False,
    ),
    Way("uniform", uniform, False),
    Way("encodings", mixed_encodings, False),
    Way("feedback", feedback, True),
    Way("halves", halves, False),
    Way("steps", stepped, True),
    Way("smoothed", smoothed, True),
)
NAMES = [way.name for way in WAYS]


@dataclass(frozen=True)
class Made:
    """A pipeline that was packed when its plan was found, and the plan in a file of its own."""

    way: Way
    folder: Path
    plan: Path

    @property
    def written(self) -> tuple[bytes, dict]:
        """The denoiser's tensors, and the plan in its configuration."""
        return contents(self.folder)


def contents(folder: Path) -> tuple[bytes, dict]:
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    return (folder / WEIGHTS).read_bytes(), config["quantization_config"]


@pytest.fixture(scope="module")
def makers(floating: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    made = {}
    for way in WAYS:
        folder = tmp_path_factory.mktemp("made")
        result = way.run(mz.load(floating))
        result.plan.save(folder / "plan.json")
        made[way.name] = Made(way, result.save(folder / "packed"), folder / "plan.json")
    return made


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, makers: dict[str, Made]) -> Made:
    return makers[request.param]


def run(*arguments: object) -> None:
    words = [str(each) for each in arguments]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0


class TestEveryRecipe:
    def test_its_plan_says_what_it_needs(self, made: Made):
        plan = mz.Plan.load(made.plan)
        assert needs_calibration(plan) == made.way.calibrates
        assert (plan.calibration is not None) == made.way.calibrates

    def test_applying_the_saved_plan(self, made: Made, floating: Path, tmp_path: Path):
        again = mz.apply(mz.load(floating), mz.Plan.load(made.plan))
        assert contents(again.save(tmp_path / "again")) == made.written

    def test_the_command_with_the_saved_plan(self, made: Made, floating: Path, tmp_path: Path):
        run("quantize", floating, "-o", tmp_path / "again", "--plan", made.plan)
        assert contents(tmp_path / "again") == made.written

    def test_while_loading(self, made: Made, floating: Path, tmp_path: Path):
        config = mz.MezzotintConfig(mz.Plan.load(made.plan))
        if made.way.calibrates:
            with pytest.raises(PlanError, match=r"layer \S+: .*calibrated.*load the model first"):
                UNet2DConditionModel.from_pretrained(floating / "unet", quantization_config=config)
            return
        unet = UNet2DConditionModel.from_pretrained(floating / "unet", quantization_config=config)
        unet.save_pretrained(tmp_path / "unet")
        assert contents(tmp_path) == made.written

    def test_from_disk_to_disk(self, made: Made, floating: Path, tmp_path: Path):
        target = tmp_path / "packed"
        if made.way.calibrates:
            with pytest.raises(PlanError, match=r"come from calibration and stand in no plan"):
                mz.quantize_checkpoint(floating, target, plan=made.plan)
            return
        mz.quantize_checkpoint(floating, target, plan=made.plan)
        assert contents(target) == made.written

    def test_from_disk_to_disk_with_the_calibrated_folder(
        self, made: Made, floating: Path, tmp_path: Path
    ):
        run("pack", floating, "-o", tmp_path / "packed", "--plan", made.folder)
        assert contents(tmp_path / "packed") == made.written


class TestTerms:
    """Each term of a plan that decides bytes changes some."""

    def test_the_search(self, makers: dict[str, Made], floating: Path, tmp_path: Path):
        made = makers["mixdq-plain"]
        text = made.plan.read_text("utf-8")
        assert text.count('"search": "minmax"') == 1
        (tmp_path / "plan.json").write_text(text.replace('"search": "minmax"', '"search": "mse"'))
        other = mz.apply(mz.load(floating), mz.Plan.load(tmp_path / "plan.json"))
        assert contents(other.save(tmp_path / "other"))[0] != made.written[0]

    def test_the_search_of_one_layer_changes_that_layer(self, floating: Path):
        def tensors(plan: mz.Plan) -> dict[str, torch.Tensor]:
            return mz.apply(mz.load(floating), plan).denoiser.state_dict()

        plain = mz.uniform_plan(mz.load(floating).unet, weight_bits=3)
        special = mz.Plan(plain.choices, encodings={"conv_in": mz.Encoding(MINMAX)})
        left, right = tensors(plain), tensors(special)
        different = {name for name in left if not torch.equal(left[name], right[name])}
        assert {name.rpartition(".")[0] for name in different} == {"conv_in"}

    def test_the_order_of_channels_changes_a_mixed_layer(
        self, makers: dict[str, Made], floating: Path
    ):
        plan = mz.Plan.load(makers["encodings"].plan)
        encodings = {**plan.encodings, "conv_out": mz.Encoding(MINMAX)}
        usual = mz.apply(mz.load(floating), mz.Plan(plan.choices, encodings=encodings)).denoiser
        other = mz.apply(mz.load(floating), plan).denoiser
        left, right = usual.state_dict(), other.state_dict()
        different = {name for name in left if not torch.equal(left[name], right[name])}
        assert {name.rpartition(".")[0] for name in different} == {"conv_out"}

    def test_the_format_of_one_half_changes_that_half(
        self, makers: dict[str, Made], floating: Path
    ):
        plan, name = mz.Plan.load(makers["halves"].plan), "up_blocks.0.resnets.0.conv1"
        alike = replace(plan[name], part_formats=())
        assert alike != plan[name]
        packed = mz.apply(mz.load(floating), plan).denoiser.state_dict()
        other = mz.apply(mz.load(floating), replace(plan, choices={**plan.choices, name: alike}))
        changed = {
            each
            for each, tensor in other.denoiser.state_dict().items()
            if each not in packed or not torch.equal(tensor, packed[each])
        }
        assert changed
        assert all(each.startswith(f"{name}.second.weight_") for each in changed)

    def test_leaving_out_smoothing_changes_the_smoothed_layers(
        self, makers: dict[str, Made], floating: Path
    ):
        plan = mz.Plan.load(makers["smoothed"].plan)
        without = {
            name: choice.with_structures(
                *(each for each in choice.structures if each != mz.Smoothing())
            )
            for name, choice in plan.choices.items()
        }
        special = {name for name, choice in plan.choices.items() if choice != without[name]}
        assert len(special) == 6
        smooth = mz.apply(mz.load(floating), plan).denoiser.state_dict()
        plain = mz.apply(mz.load(floating), replace(plan, choices=without)).denoiser.state_dict()
        for name in special:
            codes = [
                sorted(t.sum().item() for n, t in each.items() if n.startswith(f"{name}."))
                for each in (smooth, plain)
            ]
            assert codes[0] != codes[1]
        others = [n for n in plain if not n.startswith(tuple(f"{name}." for name in special))]
        assert all(torch.equal(smooth[name], plain[name]) for name in others)

    @pytest.mark.parametrize(
        "changes",
        [{"momentum": None}, {"momentum": 0.9}],
        ids=["none", "another"],
    )
    def test_the_momentum(
        self, makers: dict[str, Made], floating: Path, tmp_path: Path, changes: dict
    ):
        made = makers["mixdq-joint"]
        value = json.loads(made.plan.read_text("utf-8"))
        assert value["calibration"]["momentum"] == 0.5
        value["calibration"].update(changes)
        other = mz.apply(mz.load(floating), mz.Plan.from_dict(value))
        assert contents(other.save(tmp_path / "other"))[0] != made.written[0]

    @pytest.mark.parametrize(
        "changes",
        [{"prompts": ["apple", "owl", "red"]}, {"seed": 6}, {"batch": 1}, {"guidance": 2.0}],
        ids=lambda changes: next(iter(changes)),
    )
    def test_prompts_and_seeds(
        self, makers: dict[str, Made], floating: Path, tmp_path: Path, changes: dict
    ):
        made = makers["mixdq-joint"]
        value = json.loads(made.plan.read_text("utf-8"))
        value["calibration"]["sampling"].update(changes)
        value["calibration"]["calls"] = None
        other = mz.apply(mz.load(floating), mz.Plan.from_dict(value))
        assert contents(other.save(tmp_path / "other"))[0] != made.written[0]


class TestCalls:
    """Calibrated values are found again in the same calls, or not at all."""

    @pytest.fixture
    def plan(self, makers: dict[str, Made]) -> mz.Plan:
        return mz.Plan.load(makers["mixdq-sweep"].plan)

    def test_the_plan_names_them(self, plan: mz.Plan):
        assert plan.calibration == CalibrationSettings(SAMPLING, 4, 0.95)

    def test_a_few_of_them_are_made_again(self, floating: Path):
        pipe, recipe = mz.load(floating), mz.Auto(formats=("int4/channel",), calls=2, **BRIEF)
        sampling = mz.Sampling(("red heart", "owl"), steps=6, guidance=2.0)
        first = mz.quantize(pipe, recipe, mz.Budget(8), sampling=sampling)
        selection = mz.CallSelection(calls=2, samples=8)
        assert first.plan.calibration == CalibrationSettings(sampling, 2, None, selection)
        assert same(mz.apply(pipe, first.plan).denoiser, first.denoiser)

    def test_those_that_judged_the_plan_are_fitted_to_with_all_others(self, floating: Path):
        pipe = mz.load(floating)
        recipe = mz.Auto(formats=("int3/channel", "int6/channel"), **BRIEF)
        sampling = mz.Sampling(("red heart", "owl") * 8, steps=2)
        first = mz.quantize(pipe, recipe, mz.Budget(5), sampling=sampling)
        assert "every 4th of 32 recorded samples, held out" in first.plan.context["notes"][-1]
        assert same(mz.apply(pipe, first.plan).denoiser, first.denoiser)

    def test_where_no_range_is_static_there_is_no_momentum(self, floating: Path):
        pipe = mz.load(floating)
        plan = mixdq(pipe, "none", activation="token").plan
        assert plan.calibration == CalibrationSettings(SAMPLING, 4, None)

    def test_other_prompts_can_be_asked_for(self, plan: mz.Plan, floating: Path):
        other = mz.apply(mz.load(floating), plan, sampling=SAME_WORD)
        assert other.plan.calibration == CalibrationSettings(SAME_WORD, 1, 0.95)

    def test_on_the_command_line_too(self, makers: dict[str, Made], floating: Path, tmp_path: Path):
        made = makers["mixdq-sweep"]
        run("quantize", floating, "-o", tmp_path / "out", "--plan", made.plan, "--seed", 9)
        settings = read_plan(tmp_path / "out").calibration
        assert settings is not None
        assert settings.sampling is not None
        assert (settings.sampling.seed, settings.momentum) == (9, 0.95)

    def test_a_plan_without_settings_gets_those_that_were_used(self, plan: mz.Plan, floating: Path):
        bare = mz.Plan(plan.choices, encoding=plan.encoding)
        result = mz.apply(mz.load(floating), bare)
        settings = result.plan.calibration
        assert settings is not None
        assert settings.sampling is not None
        assert settings.sampling.prompts[:2] == ("owl", "apple")
        again = mz.apply(mz.load(floating), result.plan)
        assert same(again.denoiser, result.denoiser)

    def test_prompts_that_all_begin_alike_are_compared_with_others(self, floating: Path):
        pipe = mz.load(floating)
        recipe = mz.Auto(formats=("int4/channel",), **BRIEF)
        first = mz.quantize(pipe, recipe, mz.Budget(8), sampling=SAME_WORD)
        assert needs_calibration(first.plan)
        assert same(mz.apply(pipe, first.plan).denoiser, first.denoiser)

    def test_another_number_of_calls_is_refused(
        self, plan: mz.Plan, floating: Path, tmp_path: Path
    ):
        settings = CalibrationSettings(mz.Sampling(("owl", "apple")), calls=2)
        other = mz.Plan(plan.choices, calibration=settings)
        with pytest.raises(CalibrationError, match=r"on 2 calls .* make 1, .*give prompts"):
            mz.apply(mz.load(floating), other)

    def test_calls_that_the_plan_does_not_hold_are_refused(self, plan: mz.Plan, floating: Path):
        other = mz.Plan(plan.choices, calibration=CalibrationSettings(calls=3))
        with pytest.raises(CalibrationError, match=r"on 3 calls .* does not hold; give prompts"):
            mz.apply(mz.load(floating), other)


@pytest.fixture(scope="module")
def trained(floating: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One layer whose values are those that another grid would have rounded it to."""
    pipe, folder = mz.load(floating), tmp_path_factory.mktemp("trained")
    choices = mz.uniform_plan(pipe.unet, weight_bits=4).choices
    plan = mz.Plan(choices, encodings={"conv_in": mz.Encoding(MINMAX, "trained")})
    weight = pipe.unet.conv_in.weight.detach()
    weight_format = choices["conv_in"].weight_format
    assert weight_format is not None
    grid = weight_format.grid(weight, MINMAX)
    values = grid.values(grid.nearest(weight.flatten(1) * 0.8)).reshape(weight.shape)
    calibration = Calibration(weights={"conv_in": (GridValues(values),)})
    result = mz.apply(pipe, plan, calibration)
    assert torch.equal(result.denoiser.conv_in.dequantized_weight(), values)
    result.plan.save(folder / "plan.json")
    way = Way("trained", uniform, True)
    return Made(way, result.save(folder / "packed"), folder / "plan.json")


class TestTrainedWeights:
    """Weights that training has chosen come from their checkpoint, and from nowhere else."""

    def test_the_checkpoint_loads(self, trained: Made, tmp_path: Path):
        unet = UNet2DConditionModel.from_pretrained(trained.folder / "unet")
        unet.save_pretrained(tmp_path / "unet")
        assert contents(tmp_path) == trained.written

    def test_its_folder_gives_them_from_disk_to_disk(
        self, trained: Made, floating: Path, tmp_path: Path
    ):
        mz.quantize_checkpoint(floating, tmp_path / "packed", plan=trained.folder)
        assert contents(tmp_path / "packed") == trained.written

    def test_the_plan_alone_does_not(self, trained: Made, floating: Path, tmp_path: Path):
        plan = mz.Plan.load(trained.plan)
        complaint = "layer conv_in: rounding 'trained': its weight stands in the checkpoint"
        with pytest.raises(PlanError, match=complaint):
            mz.apply(mz.load(floating), plan)
        with pytest.raises(PlanError, match=complaint):
            mz.quantize_checkpoint(floating, tmp_path / "packed", plan=trained.plan)
        config = mz.MezzotintConfig(plan)
        with pytest.raises(PlanError, match=complaint):
            UNet2DConditionModel.from_pretrained(floating / "unet", quantization_config=config)


class TestVersion1:
    """Older plans say nothing of encodings and calibration; they mean what they meant."""

    @pytest.fixture
    def older(self, makers: dict[str, Made], tmp_path: Path) -> Path:
        value = json.loads(makers["mixdq-sweep"].plan.read_text("utf-8"))
        for field in ("encoding", "calibration"):
            del value[field]
        path = tmp_path / "older.json"
        path.write_text(json.dumps(value | {"version": 1}))
        return path

    def test_errors_are_searched_and_ranges_are_those_of_all_calls(
        self, older: Path, floating: Path
    ):
        plan = mz.Plan.load(older)
        assert plan.encoding == mz.Encoding(MSE)
        result = mz.apply(mz.load(floating), plan, sampling=SAMPLING)
        settings = CalibrationSettings(SAMPLING, 4, None)
        explicit = mz.Plan(plan.choices, encoding=mz.Encoding(MSE), calibration=settings)
        assert same(result.denoiser, mz.apply(mz.load(floating), explicit).denoiser)

    def test_a_packed_folder_still_loads(self, older: Path, floating: Path, tmp_path: Path):
        unet = mz.apply(mz.load(floating), mz.Plan.load(older), sampling=SAMPLING).denoiser
        unet.save_pretrained(tmp_path / "unet")
        config = json.loads((tmp_path / CONFIG).read_text("utf-8"))
        config["quantization_config"]["plan"] = json.loads(older.read_text("utf-8"))
        (tmp_path / CONFIG).write_text(json.dumps(config))
        assert same(UNet2DConditionModel.from_pretrained(tmp_path / "unet"), unet)


def same(left: nn.Module, right: nn.Module) -> bool:
    one, other = left.state_dict(), right.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
