"""Trajectories: the pipeline's own scheduler, guidance and prompts, on given outputs."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    HeunDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
)
from torch import Tensor, nn

from mezzotint.errors import UsageError
from mezzotint.models import Call, Sampling, find_denoiser, load_pipeline
from mezzotint.models.sampling import run_batches
from mezzotint.training.trajectories import Guidance, Trajectories, answering
from tests.models.tiny import write_generation

PROMPTS = ("an owl", "a cat", "a dog", "a fox", "a house")


def trajectories(pipe: DiffusionPipeline, batch: int = 2, **fields: object) -> Trajectories:
    source = fields.pop("source", Sampling(PROMPTS))
    return Trajectories(pipe, find_denoiser(pipe)[1], source, batch, **{"seed": 0} | fields)


def calls_along(of: Trajectories, index: int = 0) -> list[Call]:
    found = []

    def answer(call: Call) -> Tensor:
        output = call.run(of.denoiser)
        found.append(Call(call.args, call.kwargs, output))
        return output

    of.run(index, answer)
    return found


class TestPrompts:
    def test_each_is_drawn_once_before_any_is_drawn_again(self, pipe: DiffusionPipeline):
        drawn = [p for index in range(5) for p in trajectories(pipe).sampling(index).prompts]
        assert Counter(drawn) == dict.fromkeys(PROMPTS, 2)

    def test_more_prompts_than_there_are(self, pipe: DiffusionPipeline):
        assert len(trajectories(pipe, batch=7).sampling(3).prompts) == 7

    def test_their_order_and_noise_depend_on_the_seed(self, pipe: DiffusionPipeline):
        one, same, other = (trajectories(pipe, seed=seed).sampling(0) for seed in (0, 0, 1))
        assert one == same
        assert one.seed != other.seed

    def test_arguments_of_each_image_are_drawn_with_its_prompt(self, pipe: DiffusionPipeline):
        source = Sampling(PROMPTS, call_kwargs={"negative_prompt": [f"no {p}" for p in PROMPTS]})
        drawn = trajectories(pipe, source=source).sampling(3)
        assert drawn.call_kwargs["negative_prompt"] == [f"no {p}" for p in drawn.prompts]

    def test_trajectories_have_noise_of_their_own(self, pipe: DiffusionPipeline):
        of = trajectories(pipe)
        seeds = [of.sampling(index).seed + image for index in range(10) for image in range(2)]
        assert len(set(seeds)) == 20

    @pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.5, 30, 70), (1, 100, 100)])
    def test_a_share_is_the_students_own(
        self, pipe: DiffusionPipeline, share: float, least: int, most: int
    ):
        of = trajectories(pipe, own_share=share)
        assert least <= sum(of.own(index) for index in range(100)) <= most


class TestRuns:
    def test_the_pipeline_goes_where_it_goes_by_itself(self, pipe: DiffusionPipeline):
        of = trajectories(pipe)
        seen = []
        hook = of.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
        sampling = of.sampling(0)
        list(run_batches(pipe, Sampling(sampling.prompts, sampling.seed), output_type="latent"))
        hook.remove()
        found = calls_along(of)
        assert len(found) == len(seen) == 3
        assert all(map(torch.equal, (call.args[0] for call in found), seen))

    def test_it_follows_the_answers(self, pipe: DiffusionPipeline):
        of = trajectories(pipe)
        latents = []

        def nothing(call: Call) -> Tensor:
            latents.append(call.args[0])
            return torch.zeros_like(call.args[0])

        of.run(0, nothing)
        own = calls_along(of)
        assert torch.equal(latents[0], own[0].args[0])
        assert not torch.equal(latents[1], own[1].args[0])

    @pytest.mark.parametrize("in_tuple", [True, False])
    def test_outputs_are_returned_as_they_are_asked_for(self, denoiser: nn.Module, in_tuple: bool):
        with answering(denoiser, lambda call: torch.ones(1)):
            found = denoiser(torch.zeros(1), 1, torch.zeros(1), return_dict=not in_tuple)
        assert isinstance(found, tuple) == in_tuple
        assert torch.equal(found[0], torch.ones(1))
        assert "forward" not in vars(denoiser)


def generating(folder: Path, tmp_path: Path, **defaults: object) -> DiffusionPipeline:
    """The pipeline of a folder, with other defaults of its call."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    write_generation(copy, **defaults)
    return load_pipeline(copy)


class SeparateHalves(StableDiffusionPipeline):
    """Guidance in two calls of the denoiser, as many video pipelines have it."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: list[str],
        num_inference_steps: int = 3,
        guidance_scale: float = 3.0,
        generator: object = None,
        output_type: str = "latent",
    ) -> Tensor:
        count = len(prompt)
        halves = self.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=True)
        if guidance_scale == 1.0:
            halves = halves[:1]
        latents = self.prepare_latents(count, 4, 16, 16, torch.float32, "cpu", generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for step in self.scheduler.timesteps:
            found = [self.unet(latents, step, encoder_hidden_states=half)[0] for half in halves]
            guided = found[-1] + guidance_scale * (found[0] - found[-1])
            latents = self.scheduler.step(guided, step, latents).prev_sample
        return latents


class TestSeparateHalves:
    def test_guidance_in_two_calls_is_refused(self, pipe: DiffusionPipeline):
        pipe.__class__ = SeparateHalves
        with pytest.raises(UsageError, match=r"once for each half .* \"guidance_scale\": 1"):
            calls_along(trajectories(pipe))

    def test_without_guidance_it_is_followed(self, guided_folder: Path, tmp_path: Path):
        pipe = generating(guided_folder, tmp_path, num_inference_steps=3, guidance_scale=1.0)
        pipe.__class__ = SeparateHalves
        assert len(calls_along(trajectories(pipe))) == 3

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize(
        ("kind", "config"),
        [
            (HeunDiscreteScheduler, {}),
            (PNDMScheduler, {}),
            (PNDMScheduler, {"skip_prk_steps": True}),
        ],
        ids=["heun", "runge-kutta", "multistep"],
    )
    def test_schedulers_of_several_calls_a_step_are_followed(
        self,
        guided_folder: Path,
        tmp_path: Path,
        kind: type[SchedulerMixin],
        config: dict[str, object],
    ):
        pipe = generating(guided_folder, tmp_path, num_inference_steps=4, guidance_scale=3.0)
        pipe.scheduler = kind(**config)
        assert len(calls_along(trajectories(pipe))) > 4


class TestGuidance:
    def test_it_is_the_pipelines(self, pipe: DiffusionPipeline, denoiser: nn.Module):
        assert Guidance.of(pipe, denoiser) == Guidance(3.0)

    def test_it_moves_the_conditional_half_away_from_the_other(self):
        low, high = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
        found = Guidance(4.5).guided(torch.cat([low, high]), prompts=2)
        assert torch.allclose(found, low + 4.5 * (high - low))

    def test_without_a_second_half_there_is_none(self):
        output = torch.randn(2, 4, 3, 3)
        assert torch.equal(Guidance(4.5).guided(output, prompts=2), output)

    def test_a_learned_variance_is_left_out(self):
        output = torch.randn(2, 8, 3, 3)
        assert torch.equal(Guidance(1.0, True).guided(output, prompts=2), output[:, :4])

    def test_the_guided_output_is_what_the_scheduler_is_given(
        self, pipe: DiffusionPipeline, denoiser: nn.Module, monkeypatch: pytest.MonkeyPatch
    ):
        given = []
        step = pipe.scheduler.step
        monkeypatch.setattr(
            pipe.scheduler, "step", lambda y, *args, **kw: given.append(y) or step(y, *args, **kw)
        )
        found = calls_along(trajectories(pipe))
        guided = [Guidance.of(pipe, denoiser).guided(call.output, 2) for call in found]
        assert all(torch.equal(a, b) for a, b in zip(given, guided, strict=True))
