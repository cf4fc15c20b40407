"""Several components of one pipeline under one budget, in one folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, WanPipeline
from torch import Tensor

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.errors import InfeasibleBudgetError, PlanError, UsageError
from mezzotint.evaluation import module_bytes
from mezzotint.models import Joint, denoising_module
from mezzotint.plan import component_plan, joined_plan
from mezzotint.runtime import PackedLayer, packed_layers
from tests.checkpoint.packed import same
from tests.models import several, tiny
from tests.recipes.conftest import NEAREST

BOTH = ("transformer", "transformer_2")
SAMPLING = mz.Sampling(("owl", "red fox"))

BUDGET = mz.Budget(weight_bits=5.5, act_bits=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return several.save_wan(tmp_path_factory.mktemp("hub") / "wan")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> WanPipeline:
    """Wan 2.2; read only."""
    return mz.load(folder)


@pytest.fixture(scope="module")
def result(pipe: WanPipeline) -> mz.Result:
    """Both transformers quantized together; read only."""
    return mz.quantize(pipe, NEAREST, BUDGET, sampling=SAMPLING)


@pytest.fixture(scope="module")
def saved(result: mz.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.save(tmp_path_factory.mktemp("hub") / "quantized")


def frames(pipe: DiffusionPipeline) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    size = {"height": 16, "width": 16, "num_frames": 2, "num_inference_steps": 2}
    found = pipe("owl", **size, guidance_scale=1.0, max_sequence_length=8, generator=noise)
    return torch.as_tensor(found.frames)


class TestRecording:
    def test_calls_of_all_denoisers_come_from_one_run(self, pipe):
        calls = mz.record_calls(pipe, SAMPLING)
        assert [call.kwargs["component"] for call in calls] == [BOTH[0]] * 4 + [BOTH[1]] * 4
        assert [call.step for call in calls] == [0, 0, 1, 1, 2, 2, 3, 3]

    def test_they_are_run_again_by_a_joint_module(self, pipe):
        joint = denoising_module(pipe)
        for call in mz.record_calls(pipe, SAMPLING):
            assert torch.equal(call.run(joint), call.output)

    def test_so_are_those_of_a_run_of_ones_own(self, pipe):
        with mz.recording(pipe) as calls:
            frames(pipe)
        assert {call.kwargs["component"] for call in calls} == {*BOTH}

    def test_components_share_their_weights_with_the_pipeline(self, pipe):
        joint = denoising_module(pipe)
        assert isinstance(joint, Joint)
        assert joint.components == {name: getattr(pipe, name) for name in BOTH}


class TestPlans:
    def test_layers_are_called_after_their_component(self, result):
        assert result.plan.components == BOTH
        assert {name.partition(".")[0] for name in result.plan} == {*BOTH}

    def test_one_budget_holds_for_all(self, result):
        packed = packed_layers(result.denoiser).values()
        used = sum(module_bytes(layer) - bias_bytes(layer) for layer in packed)
        assert used * 8 / sum(math.prod(layer.weight_shape) for layer in packed) <= 5.5

    def test_bytes_go_where_they_matter(self, result):
        chosen = {choice.weight for choice in result.plan.choices.values()}
        assert chosen == {"int3/channel", "int8/channel"}

    def test_json_keeps_the_components(self, result, tmp_path):
        result.plan.save(tmp_path / "plan.json")
        assert mz.Plan.load(tmp_path / "plan.json") == result.plan

    def test_a_layer_of_no_component_is_refused(self):
        fields = {"version": 3, "components": ["a"], "layers": {"b.c": {"weight": "float"}}}
        with pytest.raises(PlanError, match=r"layer b.c: is of none of the plan's components \(a"):
            mz.Plan.from_dict(fields)

    def test_taken_apart_and_joined_it_is_the_same(self, result):
        parts = {name: component_plan(result.plan, name) for name in BOTH}
        assert all(getattr(result.pipeline, name).hf_quantizer.plan == parts[name] for name in BOTH)
        assert joined_plan(parts) == result.plan

    def test_joined_roundings_stay_their_own(self):
        first = mz.Plan({"a": mz.Choice("int4/channel")})
        other = mz.Plan({"a": mz.Choice("int4/channel")}, encoding=mz.Encoding("minmax"))
        joined = joined_plan({"x": first, "y": other})
        assert joined.encoding_of("x.a") == first.encoding
        assert joined.encoding_of("y.a") == other.encoding


def bias_bytes(layer: PackedLayer) -> int:
    return 0 if layer.bias is None else layer.bias.numel() * layer.bias.element_size()


class TestFolders:
    def test_one_folder_has_the_plan_of_each(self, saved, result):
        for name in BOTH:
            config = json.loads((saved / name / "config.json").read_text())
            plan = mz.Plan.from_dict(config["quantization_config"]["plan"])
            assert plan == component_plan(result.plan, name)
        assert read_plan(saved) == result.plan

    def test_diffusers_loads_the_same_bits(self, saved, result):
        loaded = DiffusionPipeline.from_pretrained(saved)
        for name in BOTH:
            ours = getattr(result.pipeline, name).state_dict()
            assert same(getattr(loaded, name).state_dict(), ours)

    def test_its_pipeline_makes_the_same_frames(self, saved, result):
        assert torch.equal(frames(mz.load(saved)), frames(result.pipeline))

    def test_its_card_names_both(self, saved):
        card = (saved / "README.md").read_text()
        assert "`transformer` and" in card
        assert "`transformer_2` are packed" in card
        assert all(file.verified for file in mz.verify_checkpoint(saved))

    def test_the_plan_packs_the_same_again(self, pipe, saved, result):
        again = mz.apply(pipe, read_plan(saved))
        assert same(again.denoiser.state_dict(), result.denoiser.state_dict())

    def test_from_disk_to_disk_one_is_packed_at_a_time(self, folder, saved, tmp_path):
        single = tiny.save_few_step(tmp_path / "tiny")
        with pytest.raises(PlanError, match="one at a time is packed from disk to disk"):
            mz.quantize_checkpoint(single, tmp_path / "packed", plan=saved)


class TestChoosing:
    def test_one_of_several_can_be_quantized(self, pipe):
        plan = mz.quantize(pipe, NEAREST, BUDGET, sampling=SAMPLING, components=BOTH[1:]).plan
        assert plan.components == BOTH[1:]

    @pytest.mark.parametrize(
        ("components", "message"),
        [
            (("unet",), "'unet' is nothing of this WanPipeline that can be quantized; it has"),
            ((), "give names, each once"),
            ("transformer", "give names, each once"),
            (("transformer", "transformer"), "give names, each once"),
        ],
        ids=["unknown", "none", "text", "twice"],
    )
    def test_others_are_refused(self, pipe, components, message):
        with pytest.raises(UsageError, match=f"components: .*{message}"):
            mz.quantize(pipe, NEAREST, BUDGET, sampling=SAMPLING, components=components)

    @pytest.mark.parametrize(
        ("recipe", "budget", "message"),
        [
            ("mixdq", BUDGET, "recipe 'mixdq' cannot decide transformer and transformer_2"),
            (NEAREST, mz.Budget(latency="0.5x"), "latency: is that of one denoiser"),
            (mz.Auto(inputs=("int8/step",)), BUDGET, "inputs: have scales for the timesteps"),
            (mz.Auto(tune_steps=1), BUDGET, "tune_minutes: trains one denoiser"),
        ],
        ids=["recipe", "latency", "steps", "tuning"],
    )
    def test_what_is_of_one_denoiser_is_refused(self, pipe, recipe, budget, message):
        with pytest.raises(UsageError, match=message):
            mz.quantize(pipe, recipe, budget, sampling=SAMPLING)

    def test_a_size_is_that_of_all(self, pipe):
        size = module_bytes(denoising_module(pipe))
        with pytest.raises(InfeasibleBudgetError, match="the smallest plan takes"):
            mz.quantize(pipe, NEAREST, mz.Budget(size=size // 20), sampling=SAMPLING)

    def test_calls_of_one_alone_do_not_tell_of_the_other(self, pipe):
        calls = [
            call for call in mz.record_calls(pipe, SAMPLING) if call.kwargs["component"] == BOTH[0]
        ]
        with pytest.raises(UsageError, match="calls: none of transformer_2"):
            mz.quantize(pipe, NEAREST, BUDGET, calls=calls)


class TestSweeping:
    def test_several_budgets_of_the_components_that_are_named(self, pipe):
        found = mz.sweep(pipe, [5.5, 8], NEAREST, sampling=SAMPLING, components=BOTH[1:])
        assert [point.label for point in found.points] == ["5.5bit", "8bit"]
        assert {point.plan.components for point in found.points} == {BOTH[1:]}
        assert found.floating_bytes == module_bytes(pipe.transformer_2)
        packed = mz.apply(pipe, found.points[0].plan)
        assert module_bytes(packed.denoiser) == found.points[0].denoiser_bytes

    @pytest.mark.parametrize(
        ("options", "more", "message"),
        [
            ({"smoothing_norms": True}, {}, "smoothing_norms: is for one denoiser"),
            ({"inputs": ("int8/step",)}, {}, "inputs: have scales for the timesteps"),
            ({}, {"profile": "profile.json"}, "profile: is of one denoiser"),
        ],
        ids=["norms", "steps", "profile"],
    )
    def test_what_is_of_one_denoiser_is_refused(self, pipe, options, more, message):
        with pytest.raises(UsageError, match=message):
            mz.sweep(pipe, [4], mz.Auto(**options), sampling=SAMPLING, **more)
