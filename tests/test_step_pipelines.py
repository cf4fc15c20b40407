"""Scales of inputs for each step, in pipelines: every call gives what a fresh one gives."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, HeunDiscreteScheduler, UNet2DConditionModel
from typer.testing import CliRunner

import mezzotint as mz
from mezzotint.cli import app
from mezzotint.formats import from_bits
from mezzotint.models import recording
from mezzotint.plan import CalibrationSettings, CallSelection, Choice
from mezzotint.runtime import ConstantTokens, StepScales, TimestepReader, checking_layers
from tests.models import tiny

STEPS = 4
PROMPTS = mz.Sampling(("owl", "red apple"), seed=3, steps=STEPS)
TEXT = ("attn2.to_k", "attn2.to_v")


def small_pipeline() -> DiffusionPipeline:
    """One block with text, so that it compiles in no time."""
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    return pipe


def stepped_plan(unet: UNet2DConditionModel) -> mz.Plan:
    plain = Choice("int4/channel", "uint4/step", (StepScales(STEPS),))
    text = Choice("int4/channel", "uint4/step", (ConstantTokens(1), StepScales(STEPS)))
    names = mz.uniform_plan(unet, weight_bits=4).choices
    return mz.Plan({name: text if name.endswith(TEXT) else plain for name in names})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed pipeline; read only."""
    pipe = small_pipeline()
    plan = stepped_plan(pipe.unet)
    return mz.apply(pipe, plan, sampling=PROMPTS).save(tmp_path_factory.mktemp("steps") / "packed")


@pytest.fixture
def pipe(folder: Path) -> DiffusionPipeline:
    torch.compiler.reset()
    return mz.load(folder)


@pytest.fixture(scope="module")
def pristine(folder: Path) -> UNet2DConditionModel:
    """The denoiser; whoever calls it copies it before."""
    return mz.load(folder).unet


def drawn(pipe: DiffusionPipeline, **options: Any) -> None:
    settings = {"num_inference_steps": STEPS, "output_type": "latent", **options}
    pipe(["owl"], generator=torch.Generator().manual_seed(1), **settings)


def assert_all_fresh(
    pipe: DiffusionPipeline, pristine: UNet2DConditionModel, **options: Any
) -> list[float]:
    """Draw; every call gives what the same call gives on a copy that was never called."""
    with recording(pipe) as calls:
        drawn(pipe, **options)
    with torch.no_grad():
        for call in calls:
            assert call.output is not None
            assert torch.equal(call.run(copy.deepcopy(pristine)), call.output)
    return [call.timestep for call in calls]


class TestEveryCallIsAFreshOne:
    def test_of_the_calibrated_steps(self, pipe, pristine):
        assert len(assert_all_fresh(pipe, pristine)) == STEPS

    def test_of_other_numbers_of_steps(self, pipe, pristine):
        assert len(assert_all_fresh(pipe, pristine, num_inference_steps=7)) == 7
        assert len(assert_all_fresh(pipe, pristine, num_inference_steps=1)) == 1

    def test_with_guidance_two_samples_share_the_timestep(self, pipe, pristine):
        assert_all_fresh(pipe, pristine, guidance_scale=3.0)

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_of_a_scheduler_that_calls_twice_a_step(self, pipe, pristine):
        pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
        timesteps = assert_all_fresh(pipe, pristine)
        assert len(timesteps) == 2 * STEPS - 1
        assert len(set(timesteps)) == STEPS

    # The embeddings between have another first token than the one that was calibrated.
    @pytest.mark.filterwarnings("ignore::mezzotint.errors.CalibrationWarning")
    def test_where_others_are_made_between(self, pipe, pristine):
        def disturb(pipe: DiffusionPipeline, step: int, t: object, inputs: dict) -> dict:
            sample = torch.ones(3, 4, 8, 8)
            text = torch.ones(3, tiny.TEXT_TOKENS, tiny.TEXT_WIDTH)
            with torch.no_grad():
                pipe.unet(sample, torch.tensor([1, 500, 999]), text)
            return inputs

        timesteps = assert_all_fresh(pipe, pristine, callback_on_step_end=disturb)
        assert len(timesteps) == 2 * STEPS

    def test_where_steps_are_skipped(self, pipe, pristine):
        timesteps = assert_all_fresh(
            pipe, pristine, num_inference_steps=2, timesteps=[999, 259], original_inference_steps=50
        )
        assert timesteps == [999, 259]

    def test_compiled_as_a_whole(self, pipe, pristine):
        pipe.unet.compile(backend="eager")
        assert_all_fresh(pipe, pristine)
        assert_all_fresh(pipe, pristine, num_inference_steps=3)

    def test_compiled_from_outside(self, pipe, pristine):
        with recording(pipe) as calls:
            drawn(pipe)
        compiled = torch.compile(pipe.unet, backend="eager")
        with torch.no_grad():
            for call in [*calls, *reversed(calls)]:
                assert torch.equal(call.run(compiled), call.output)

    def test_compiled_block_by_block(self, pipe, pristine):
        pipe.unet.compile_repeated_blocks(backend="eager", fullgraph=True)
        assert_all_fresh(pipe, pristine)
        assert_all_fresh(pipe, pristine, num_inference_steps=3)


def test_a_batch_of_mixed_timesteps_is_that_of_single_calls(pristine):
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(3, 4, 8, 8, generator=generator)
    text = torch.randn(3, tiny.TEXT_TOKENS, tiny.TEXT_WIDTH, generator=generator)
    timesteps = torch.tensor([999, 20, 510])
    unet = copy.deepcopy(pristine)
    text[:, 0] = from_bits(checking_layers(unet)[0].known_input, torch.bfloat16)
    with torch.no_grad():
        mixed = unet(sample, timesteps, text).sample
        singles = [unet(sample[i : i + 1], timesteps[i], text[i : i + 1]).sample for i in range(3)]
        wrong = unet(sample, timesteps.flip(0), text).sample
    # Convolutions and attention, which stay floating, depend on the size of a batch in their last
    # bits, and a last bit may be a code's.
    apart = (mixed - torch.cat(singles)).norm() / mixed.norm()
    assert apart < 1e-3 < (mixed - wrong).norm() / mixed.norm()


class TestCalibration:
    def test_the_plan_says_that_calls_of_all_steps_were_kept(self, folder: Path):
        pipe = small_pipeline()
        plan = stepped_plan(pipe.unet)
        twelve = mz.Plan({n: copy_with_steps(choice, 12) for n, choice in plan.choices.items()})
        sampling = mz.Sampling(("owl", "red apple"), steps=12)
        result = mz.apply(pipe, twelve, sampling=sampling)
        settings = result.plan.calibration
        assert settings is not None
        assert settings.selection == CallSelection(calls=12, samples=8)
        assert settings.calls == 12
        again = mz.apply(pipe, result.plan)
        one, other = result.denoiser.state_dict(), again.denoiser.state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_a_selection_of_fewer_calls_is_widened(self, folder: Path):
        pipe = small_pipeline()
        few = CalibrationSettings(PROMPTS, 2, None, CallSelection(calls=2, samples=1))
        plan = replace(stepped_plan(pipe.unet), calibration=few)
        settings = mz.apply(pipe, plan).plan.calibration
        wider = CallSelection(calls=STEPS, samples=1)
        assert settings == CalibrationSettings(PROMPTS, STEPS, None, wider)

    def test_every_step_has_scales_of_its_own(self, pristine):
        tables = pristine.conv_in.own_tensors
        assert len(tables["timestep"].unique()) == STEPS
        assert len(tables["step_scale"].unique()) == STEPS

    def test_another_number_of_steps_names_the_remedy(self):
        pipe = small_pipeline()
        sampling = mz.Sampling(("owl", "red apple"), steps=3)
        with pytest.raises(mz.MezzotintError, match=r"4 steps.* 3 timesteps .*StepScales\(3\)"):
            mz.apply(pipe, stepped_plan(pipe.unet), sampling=sampling)


def copy_with_steps(choice: Choice, steps: int) -> Choice:
    return choice.with_structures(*choice.structures[:-1], StepScales(steps))


def test_a_dequantized_denoiser_reads_no_timestep(pipe):
    assert TimestepReader.of(pipe.unet) is not None
    assert TimestepReader.of(pipe.unet.dequantize()) is None


def test_the_command_line_says_how_inputs_are_multiplied(folder: Path):
    told = CliRunner().invoke(app, ["inspect", str(folder)]).output
    assert "4-bit inputs in 8-bit products" in " ".join(told.split())


def test_openvino_refuses_it_and_names_the_remedy(pipe):
    with pytest.raises(mz.MezzotintError, match=r"structure step_scales; use the torch engine"):
        mz.with_engine(pipe, "openvino")
