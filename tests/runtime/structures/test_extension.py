"""A structure defined elsewhere goes all the way, from a plan to a checkpoint and an engine."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint._journal import Journal
from mezzotint.allocation import Limit, Option, Problem, solve
from mezzotint.calibration import calibrated
from mezzotint.checkpoint import read_plan
from mezzotint.errors import CheckpointError, FormatError, PlanError, UsageError
from mezzotint.measuring import InProcess, LayerChange, Noise, Original, measure_layers
from mezzotint.models import Call, generate, record_calls
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.costs import BYTES, byte_limit, choice_bytes
from mezzotint.runtime import Calibration, module_bytes, packed_layers, stored_tensors
from tests.checkpoint import packed
from tests.models import tiny
from tests.runtime.structures.scaled import Evened, InputScale

KEY = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
QUERY = KEY.replace("to_k", "to_q")
SHORTCUT = "up_blocks.0.resnets.0.conv_shortcut"
SCALED = (InputScale(limit=3),)
PLAN = Plan(
    {
        KEY: Choice("int4/channel", "int8/token", (mz.ConstantTokens(1), *SCALED)),
        QUERY: Choice("uint3/group8", "uint8/tensor", (Evened(),)),
        SHORTCUT: Choice("int4/channel", "uint8/tensor", (*SCALED, mz.SplitInput(16))),
    }
)
PROMPTS = mz.Sampling(("owl", "red fox"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, some of whose layers have input channels of very different weights."""
    path = tiny.save_few_step(tmp_path_factory.mktemp("extension") / "tiny")
    unet = mz.load(path).unet
    for name in (QUERY, SHORTCUT):
        weight = unet.get_submodule(name).weight.data
        spread = torch.logspace(-3, 3, weight.shape[1], base=2)
        weight *= spread.view(-1, *(1,) * (weight.ndim - 2))
    unet.save_pretrained(path / "unet")
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> DiffusionPipeline:
    return mz.load(folder)


@pytest.fixture(scope="module")
def calls(pipe: DiffusionPipeline) -> tuple[Call, ...]:
    return record_calls(pipe, PROMPTS)


@pytest.fixture(scope="module")
def result(pipe: DiffusionPipeline, calls: tuple[Call, ...]) -> mz.Result:
    return mz.apply(pipe, PLAN, calibrated(pipe.unet, PLAN, calls))


@pytest.fixture(scope="module")
def saved(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("saved") / "packed")


def test_it_stands_in_plans(tmp_path: Path):
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    layer = {"weight": "int4/channel", "structures": [{"kind": "input_scale", "limit": "3"}]}
    with pytest.raises(PlanError, match=r"plan: field layers\.a\.structures\.0\.limit: .*integer"):
        Plan.from_dict({"version": 1, "layers": {"a": layer}})


def test_what_is_calibrated_is_calibrated_by_the_plan_alone(
    pipe: DiffusionPipeline, result: mz.Result
):
    again = mz.apply(pipe, PLAN, sampling=PROMPTS)
    assert packed.same(again.denoiser.state_dict(), result.denoiser.state_dict())


def test_it_computes_nearly_what_the_floating_layer_does(
    result: mz.Result, pipe: DiffusionPipeline, calls: tuple[Call, ...]
):
    with torch.no_grad():
        exact, found = (calls[0].run(unet) for unet in (pipe.unet, result.denoiser))
    assert 0 < (exact - found).norm() < 0.2 * exact.norm()


def test_its_bytes_are_counted(result: mz.Result, pipe: DiffusionPipeline):
    layers = {layer.name: layer for layer in mz.inventory(pipe.unet)}
    for name, choice in PLAN.choices.items():
        weight, held = pipe.unet.get_submodule(name).weight, result.denoiser.get_submodule(name)
        bias = 0 if held.bias is None else held.bias.nbytes
        cost = choice_bytes(layers[name], choice, weight)
        assert cost == module_bytes(held) - bias
        without = choice_bytes(layers[name], choice.plain, weight)
        assert cost - without >= weight.shape[1]


def test_a_fresh_model_is_the_same_bit_for_bit(result: mz.Result, saved: Path):
    loaded = mz.load(saved)
    assert read_plan(saved).choices == PLAN.choices
    assert packed.same(loaded.unet.state_dict(), result.denoiser.state_dict())
    assert (generate(loaded, PROMPTS) == generate(result.pipeline, PROMPTS)).all()


def test_packing_from_disk_to_disk_writes_the_same(folder: Path, saved: Path, tmp_path: Path):
    mz.quantize_checkpoint(folder, tmp_path / "streamed", plan=saved)
    left, right = (mz.load(each).unet.state_dict() for each in (saved, tmp_path / "streamed"))
    assert packed.same(left, right)


def test_what_it_says_is_impossible_is_refused_while_loading(saved: Path, tmp_path: Path):
    mz.load(saved).save_pretrained(tmp_path / "damaged")
    width = tiny.TEXT_WIDTH
    packed.rewrite(
        tmp_path / "damaged" / "unet" / packed.WEIGHTS,
        **{f"{KEY}.others.exponent": torch.full((width,), 99, dtype=torch.int8)},
    )
    with pytest.raises(CheckpointError, match=rf": layer {KEY}\.others: exponent holds"):
        mz.load(tmp_path / "damaged")


def test_without_calibration_the_layer_is_named(pipe: DiffusionPipeline):
    with pytest.raises(FormatError, match=f"layer {QUERY}: evened needs its calibrated expo"):
        mz.apply(pipe, Plan({QUERY: Choice("int4/channel", structures=(Evened(),))}), Calibration())


def test_it_enters_the_integer_program(
    pipe: DiffusionPipeline, calls: tuple[Call, ...], tmp_path: Path
):
    """Bytes are spent on exponents exactly where these buy most."""
    layers = [layer for layer in mz.inventory(pipe.unet) if layer.name in (QUERY, SHORTCUT)]
    choices = [
        Choice(weight, structures=structures)
        for weight in ("int3/channel", "int4/channel")
        for structures in ((), SCALED)
    ]
    changes = [LayerChange(layer.name, choice) for layer in layers for choice in choices]
    assert len({change.name for change in changes}) == len(changes)
    executor = InProcess(Original(pipe.unet, calls[:1]))
    with Journal(tmp_path / "journal.jsonl", {}) as journal:
        found = measure_layers(changes, Noise(), executor, journal)
    costs = {
        layer.name: {
            choice: choice_bytes(layer, choice, pipe.unet.get_submodule(layer.name).weight)
            for choice in choices
        }
        for layer in layers
    }
    least = sum(min(each.values()) for each in costs.values())
    limit = Limit(BYTES, maximum=least + max(layer.weight_shape[1] for layer in layers))
    problem = Problem(
        {
            name: tuple(
                Option(choice, -figures["noise"], {BYTES: costs[name][choice]})
                for choice, figures in each.items()
            )
            for name, each in found.items()
        }
    )
    solution = solve(problem, [limit])
    within = [
        dict(zip(costs, picked, strict=True))
        for picked in itertools.product(choices, repeat=len(layers))
        if sum(costs[n][c] for n, c in zip(costs, picked, strict=True)) <= limit.maximum
    ]
    best = max(within, key=lambda picked: sum(-found[n][c]["noise"] for n, c in picked.items()))
    assert dict(solution.chosen) == best
    assert any(choice.structures for choice in best.values())
    layer = layers[0]
    byte_limit(mz.Budget(weight_bits=8), pipe.unet, [layer], {layer.name: costs[layer.name]})


def test_an_engine_that_does_not_know_it_refuses_by_name(pipe: DiffusionPipeline):
    result = mz.apply(pipe, Plan({KEY: PLAN[KEY]}), sampling=PROMPTS)
    complaint = rf"openvino does not know the structure input_scale.*\(layer {KEY}\)"
    with pytest.raises(UsageError, match=complaint):
        mz.with_engine(result.pipeline, "openvino")
    assert type(mz.with_engine(result.pipeline, "auto").unet) is type(result.denoiser)


def test_it_is_one_layer_of_its_model(result: mz.Result):
    assert set(packed_layers(result.denoiser)) == set(PLAN.choices)
    names = stored_tensors(PLAN[KEY], tuple(result.denoiser.get_submodule(KEY).weight_shape))
    assert {"constant", "others.exponent", "others.scaled.weight_codes"} < names.keys()
