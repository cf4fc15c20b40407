from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import Sampling, generate, generation_defaults, load_pipeline, step_progress
from mezzotint.models.pipeline_call import check_steps
from tests.models import tiny

PROMPTS = ("owl", "red fox", "cat", "house")


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"seed": -1}, "seed"),
        ({"steps": 0}, "steps"),
        ({"guidance": -0.5}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"batch": 0}, "batch"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_values_out_of_range_name_the_field(fields: dict[str, object], culprit: str):
    with pytest.raises(UsageError, match=f"^{culprit}: "):
        Sampling(**{"prompts": PROMPTS, **fields})


def test_images_are_rgb_bytes_one_a_prompt(pipe: DiffusionPipeline):
    images = generate(pipe, Sampling(PROMPTS))
    assert images.shape == (4, 16, 16, 3)
    assert images.dtype == np.uint8
    assert images.std() > 1


def test_the_same_sampling_gives_the_same_images(pipe: DiffusionPipeline):
    assert np.array_equal(generate(pipe, Sampling(PROMPTS)), generate(pipe, Sampling(PROMPTS)))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_batch_size_changes_nothing_but_rounding(pipe: DiffusionPipeline, batch: int):
    images = generate(pipe, Sampling(PROMPTS, batch=batch)).astype(int)
    assert np.abs(images - generate(pipe, Sampling(PROMPTS, batch=4))).max() <= 1


def test_image_i_has_seed_plus_i(pipe: DiffusionPipeline):
    together = generate(pipe, Sampling(PROMPTS, seed=10)).astype(int)
    alone = generate(pipe, Sampling(PROMPTS[2:3], seed=12))
    assert np.abs(together[2] - alone[0]).max() <= 1


def test_equal_prompts_get_different_noise(pipe: DiffusionPipeline):
    first, second = generate(pipe, Sampling(("owl", "owl")))
    assert not np.array_equal(first, second)


def test_generation_json_gives_the_defaults(unet_pipe: DiffusionPipeline):
    assert generation_defaults(unet_pipe) == {"num_inference_steps": 2, "guidance_scale": 1.0}
    default, explicit = Sampling(PROMPTS), Sampling(PROMPTS, steps=2, guidance=1.0)
    assert np.array_equal(generate(unet_pipe, default), generate(unet_pipe, explicit))


@pytest.mark.parametrize("change", [{"steps": 1}, {"guidance": 6.0}], ids=["steps", "guidance"])
def test_steps_and_guidance_override_the_defaults(
    pixart_pipe: DiffusionPipeline, change: dict[str, float]
):
    changed = generate(pixart_pipe, Sampling(PROMPTS, **change))
    assert not np.array_equal(changed, generate(pixart_pipe, Sampling(PROMPTS)))


def test_without_generation_json_there_are_no_defaults(unet_copy: Path):
    (unet_copy / "generation.json").unlink()
    assert generation_defaults(load_pipeline(unet_copy)) == {}
    assert generation_defaults(tiny.tiny_stable_diffusion()) == {}


@pytest.mark.parametrize(
    ("fields", "culprit"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps: .*greater than 0"),
        ({"guidance_scale": "strong"}, "guidance_scale: .*number"),
        ({"max_sequence_lenght": 16}, "max_sequence_lenght: StableDiffusionPipeline takes no such"),
        ({"prompt": "owl"}, "prompt: is set by sampling"),
        ({"num_videos_per_prompt": 2}, "num_videos_per_prompt: is set by sampling"),
    ],
    ids=["steps", "guidance", "unknown", "reserved", "reserved-of-videos"],
)
def test_a_wrong_generation_json_names_file_and_field(
    unet_copy: Path, fields: dict[str, object], culprit: str
):
    tiny.write_generation(unet_copy, **fields)
    with pytest.raises(ModelError, match=f"generation.json: field {culprit}"):
        generate(load_pipeline(unet_copy), Sampling(PROMPTS))


def test_generation_json_must_hold_an_object(unet_copy: Path):
    (unet_copy / "generation.json").write_text("[4]")
    with pytest.raises(ModelError, match=r"generation\.json: field top level: "):
        generation_defaults(load_pipeline(unet_copy))


def test_more_steps_than_timesteps_are_refused(unet_pipe: DiffusionPipeline):
    with pytest.raises(UsageError, match=r"steps: 1,001 are more than the 1,000 timesteps"):
        generate(unet_pipe, Sampling(("owl",), steps=1001))


def test_flow_matching_takes_any_number_of_steps():
    """Its schedulers interpolate between two times."""
    flowing = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=4))
    flowing.scheduler.set_timesteps(9)
    assert len(flowing.scheduler.timesteps) == 9
    check_steps(flowing, 9)
    flows = DPMSolverMultistepScheduler(
        num_train_timesteps=4, use_flow_sigmas=True, prediction_type="flow_prediction"
    )
    check_steps(SimpleNamespace(scheduler=flows), 9)


def test_a_setting_that_the_pipeline_lacks_is_an_error():
    class Guideless(DiffusionPipeline):
        def __init__(self) -> None:
            self.register_to_config()

        def __call__(self, prompt: object, generator: object, output_type: str) -> None: ...

    with pytest.raises(UsageError, match="Guideless takes no guidance_scale"):
        generate(Guideless(), Sampling(PROMPTS, guidance=1.0))


def test_nan_images_are_an_error(unet_pipe: DiffusionPipeline):
    unet_pipe.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        generate(unet_pipe, Sampling(PROMPTS))


def test_nothing_is_written_to_the_terminal(pipe: DiffusionPipeline, capfd):
    pipe.set_progress_bar_config(disable=False)
    generate(pipe, Sampling(PROMPTS))
    assert capfd.readouterr() == ("", "")


def test_the_work_around_it_is_told_of_the_pipelines_steps(
    unet_pipe: DiffusionPipeline, monkeypatch: pytest.MonkeyPatch
):
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(step_progress, "part_done", lambda *steps: told.append(steps))
    generate(unet_pipe, Sampling(("owl", "apple", "ship"), steps=3, batch=2))
    assert told == [(1, 3), (2, 3), (3, 3)] * 2
    assert list(step_progress.StepProgress("ab")) == ["a", "b"]
    assert told[-2:] == [(1, 2), (2, 2)]


def test_a_bar_of_the_users_own_is_there_again(unet_pipe: DiffusionPipeline):
    unet_pipe.progress_bar = mine = unet_pipe.progress_bar
    generate(unet_pipe, Sampling(("owl",), steps=1))
    assert unet_pipe.progress_bar is mine


def test_the_pipelines_own_progress_setting_is_kept(unet_pipe: DiffusionPipeline):
    unet_pipe.set_progress_bar_config(desc="mine")
    generate(unet_pipe, Sampling(PROMPTS[:1]))
    assert unet_pipe._progress_bar_config == {"desc": "mine"}
