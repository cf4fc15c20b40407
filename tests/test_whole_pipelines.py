"""Text encoders and decoders beside a denoiser, under one budget."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.checkpoint import read_plan
from mezzotint.cli import app
from mezzotint.errors import InfeasibleBudgetError, ProbeError, UsageError
from mezzotint.evaluation import module_bytes
from mezzotint.measuring import Replay
from mezzotint.measuring.probes import draw_probes, random_signs
from mezzotint.models import Call, Joint, denoising_module, rows_of
from mezzotint.recipes.auto.held_out import hold_out
from mezzotint.runtime import Calibration, pack_layer, replace_layer
from tests.checkpoint.packed import same
from tests.measuring.probing import candidates, probed
from tests.models import tiny
from tests.recipes.conftest import NEAREST

ALL = ("text_encoder", "unet", "vae")
SAMPLING = mz.Sampling(("owl", "red fox"), guidance=3.0)
FC1 = "text_encoder.encoder.layers.0.mlp.fc1"
QUICK = replace(NEAREST, shortcuts="none")


def small_pipeline() -> StableDiffusionPipeline:
    pipe = tiny.tiny_stable_diffusion()
    pipe.unet = tiny.smallest_unet()
    return pipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    small_pipeline().save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=2, guidance_scale=3.0)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> DiffusionPipeline:
    """Read only."""
    return mz.load(folder)


@pytest.fixture(scope="module")
def joint(pipe: DiffusionPipeline) -> Joint:
    found = denoising_module(pipe, ALL)
    assert isinstance(found, Joint)
    return found.eval()


@pytest.fixture(scope="module")
def calls(pipe: DiffusionPipeline, joint: Joint) -> tuple[Call, ...]:
    return mz.record_calls(pipe, SAMPLING, denoiser=joint)


@pytest.fixture(scope="module")
def result(pipe: DiffusionPipeline) -> mz.Result:
    """Text encoder, U-Net and decoder quantized together; read only."""
    budget = mz.Budget(weight_bits=5.5, act_bits=16)
    return mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=ALL)


class TestRecording:
    def test_calls_are_of_the_denoiser_and_of_the_decoder(self, calls):
        assert [call.kwargs["component"] for call in calls] == ["unet", "unet", "vae"]

    def test_rows_name_their_text(self, calls):
        # Both halves of guidance: the empty text first, which the first prompt has as well.
        assert calls[0].kwargs["text"].tolist() == [[0, 0], [0, 0], [0, 1], [1, 1]]

    def test_the_joint_module_encodes_it_again(self, joint, calls):
        with torch.no_grad():
            for call in calls:
                blank = torch.zeros_like(call.kwargs.get("encoder_hidden_states", torch.zeros(1)))
                other = replace(call, kwargs={**call.kwargs, "encoder_hidden_states": blank})
                asked = other if call.kwargs["component"] == "unet" else call
                assert torch.equal(asked.run(joint), call.output)

    def test_one_prompt_is_enough_to_tell_what_is_text(self, pipe, joint):
        (call, *_) = mz.record_calls(pipe, mz.Sampling(("owl",)), denoiser=joint)
        assert torch.equal(call.run(joint), call.output)

    def test_text_that_changes_on_the_way_is_refused(self, pipe, joint, calls):
        changed = {**calls[1].kwargs, "encoder_hidden_states": torch.ones(4, 16, tiny.TEXT_WIDTH)}
        with pytest.raises(UsageError, match="at step 1 is not the text as it is at the first"):
            joint.texts.told(joint.components, [replace(calls[1], kwargs=changed)], SAMPLING)

    def test_pictures_are_decoded_without_noise_of_their_own(self, pipe, calls):
        latents = calls[-1].kwargs["z"]
        with torch.no_grad():
            assert torch.equal(pipe.vae.decode(latents).sample, calls[-1].output)


class TestProbes:
    def real(self, joint: Joint, call: Call, direction: Tensor) -> float:
        """Change of the output along a direction, with the layer really packed."""
        layer = joint.get_submodule(FC1)
        plan = mz.Plan({FC1: mz.Choice("int8/channel")})
        replace_layer(joint, FC1, pack_layer(FC1, layer, plan, Calibration()))
        try:
            with torch.no_grad():
                change = call.run(joint).double() - call.output.double()
        finally:
            packed = joint.get_submodule(FC1)
            replace_layer(joint, FC1, layer)
            assert packed is not layer
        return float((change * direction).sum())

    def test_the_chain_goes_through_the_denoiser_into_the_text_encoder(self, joint, calls):
        unet = [call for call in calls if call.kwargs["component"] == "unet"]
        whole = [replace(probe, row=None) for probe in draw_probes(unet, 4)]
        found = probed(joint, unet, candidates([FC1], ["int8/channel"]), whole)
        for probe, predicted in zip(whole, found.weights[FC1]["int8/channel"], strict=True):
            call = unet[probe.call]
            direction = random_signs(call.output.double(), probe.seed)
            assert float(predicted) == pytest.approx(self.real(joint, call, direction), rel=0.1)

    def test_where_no_gradient_passes_layers_are_measured(self, monkeypatch):
        blocked = small_pipeline()
        monkeypatch.setattr(
            StableDiffusionPipeline,
            "encode_prompt",
            torch.no_grad()(StableDiffusionPipeline.encode_prompt),
        )
        joint = denoising_module(blocked, ("text_encoder",)).eval()
        sampling = replace(SAMPLING, steps=1)
        recorded = mz.record_calls(blocked, sampling, denoiser=joint)
        with pytest.raises(ProbeError, match="lets no gradient through to text_encoder"):
            probed(joint, recorded, candidates([FC1], ["int8/channel"]), 1)
        tokens = {"components": ("text_encoder",), "sampling": sampling}
        plan = mz.quantize(blocked, QUICK, mz.Budget(weight_bits=6, act_bits=16), **tokens).plan
        assert "sensitivity was measured, not probed" in " ".join(plan.context["notes"])


class TestResults:
    def test_every_component_has_layers_in_one_plan(self, result):
        assert result.plan.components == ALL
        assert {name.partition(".")[0] for name in result.plan.quantized} == {*ALL}

    def test_encoders_of_pictures_stay_floating(self, result):
        assert not [name for name in result.plan if name.startswith("vae.encoder")]

    def test_no_first_token_is_constant(self, result):
        assert not any(choice.structures for choice in result.plan.choices.values())

    def test_one_folder_holds_all(self, result, tmp_path):
        saved = result.save(tmp_path / "saved")
        assert read_plan(saved) == result.plan
        loaded = DiffusionPipeline.from_pretrained(saved)
        for name in ALL:
            ours = getattr(result.pipeline, name).state_dict()
            assert same(getattr(loaded, name).state_dict(), ours)
            assert (
                "sha256"
                in json.loads((saved / name / "config.json").read_text())["quantization_config"]
            )

    def test_the_original_is_as_it_was(self, pipe, result):
        assert not hasattr(pipe.text_encoder.config, "quantization_config")
        assert pipe.unet is not result.pipeline.unet

    @pytest.mark.parametrize("name", ["text_encoder", "vae"])
    def test_a_component_alone_is_packed_again_after_its_folder(self, pipe, tmp_path, name):
        budget = mz.Budget(weight_bits=6, act_bits=16)
        found = mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=[name])
        plan = read_plan(found.save(tmp_path / "saved"))
        assert plan.components == (name,)
        again = getattr(mz.apply(pipe, plan).pipeline, name).state_dict()
        assert same(again, getattr(found.pipeline, name).state_dict())

    def test_a_text_encoder_alone_leaves_the_denoiser_floating(self, pipe):
        budget = mz.Budget(weight_bits=5, act_bits=8)
        found = mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=["text_encoder"])
        assert found.pipeline.unet is pipe.unet
        assert list(found.denoiser.components) == ["text_encoder"]

    def test_copies_of_a_joint_module_share_what_is_only_run(self, pipe):
        joint = denoising_module(pipe, ("text_encoder",))
        copied = copy.deepcopy(joint)
        assert copied.unet is joint.unet
        assert copied.text_encoder is not joint.text_encoder


class TestBudgets:
    def size(self, pipe: DiffusionPipeline) -> int:
        return sum(module_bytes(getattr(pipe, name)) for name in ALL)

    def test_a_size_of_the_pipeline_counts_every_model(self, pipe):
        size = self.size(pipe) - 20_000
        budget = mz.Budget(pipeline_size=size, act_bits=16)
        pair = ("unet", "text_encoder")
        found = mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=pair).pipeline
        assert self.size(found) <= size
        assert found.vae is pipe.vae

    def test_what_the_others_take_cannot_be_saved(self, pipe):
        budget = mz.Budget(pipeline_size=module_bytes(pipe.vae))
        with pytest.raises(InfeasibleBudgetError, match=r"that are not quantized take .* bytes"):
            mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=("unet",))

    def test_what_cannot_be_met_is_told_of_the_pipeline(self, pipe):
        budget = mz.Budget(pipeline_size=module_bytes(pipe.vae) + module_bytes(pipe.unet) + 9)
        with pytest.raises(InfeasibleBudgetError, match=r"pipeline_size \d+, of which .*: size"):
            mz.quantize(pipe, QUICK, budget, sampling=SAMPLING, components=("text_encoder",))

    def test_there_is_no_pipeline_around_a_module(self, pipe):
        calls = mz.record_calls(pipe, replace(SAMPLING, steps=1))
        with pytest.raises(UsageError, match="pipeline_size: there is no pipeline"):
            mz.quantize_module(pipe.unet, calls, QUICK, mz.Budget(pipeline_size="1MB"))


def test_calls_of_ones_own_have_no_text(pipe):
    calls = mz.record_calls(pipe, replace(SAMPLING, steps=1))
    with pytest.raises(UsageError, match="calls: are of denoisers, and text encoders"):
        mz.quantize(pipe, QUICK, calls=calls, sampling=SAMPLING, components=("text_encoder",))


def test_each_component_has_samples_on_both_sides(calls):
    pictures = rows_of(calls[-1], (0, 1, 0, 1))
    parts = hold_out([*calls[:-1], pictures])
    assert parts.apart
    for part in (parts.others, parts.held):
        assert {call.kwargs["component"] for call in part} == {"unet", "vae"}


def test_without_samples_on_both_sides_nothing_is_held_out(calls):
    assert len(hold_out(calls).samples) >= 2
    assert not hold_out(calls).enough


def test_what_another_component_does_is_not_computed_again(joint, calls):
    replay = Replay(joint, calls)
    replay.advance("vae.decoder.conv_in")
    with torch.no_grad():
        assert replay.run(calls[0]) is calls[0].output
        assert replay.run(calls[-1]) is not calls[-1].output
        replay.advance(FC1)
        assert replay.run(calls[0]) is not calls[0].output
        assert torch.equal(replay.run(calls[0]), calls[0].output)


class TestCommands:
    def run(self, *arguments: object) -> dict[str, Any]:
        found = CliRunner().invoke(app, [str(each) for each in (*arguments, "--json")])
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    def test_components_share_a_budget(self, folder, pipe, tmp_path):
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("owl\nred fox\n")
        size = sum(module_bytes(getattr(pipe, name)) for name in ALL) - 10_000
        options = "--sensitivity probes --probes 4 --regret 1e9 --no-exchanges --no-smoothing"
        options += " --rounding nearest --bias-correction never --formats int4/channel,int8/channel"
        asked = ["--component", "text_encoder", "--component", "unet", "--pipeline-size", size]
        out = tmp_path / "out"
        limits = [*asked, "--act-bits", 16, "--prompts", prompts]
        found = self.run("quantize", folder, "-o", out, *limits, *options.split())
        assert found["plan"]["components"] == ["text_encoder", "unet"]
        inspected = self.run("inspect", out)
        assert inspected["component"] == "text_encoder and unet"
        assert FC1 in {each["layer"] for each in inspected["packed"]}
