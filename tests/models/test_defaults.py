import copy
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from mezzotint.errors import ModelError
from mezzotint.models import find_denoiser, load_pipeline, with_generation_defaults
from tests.models import tiny


class Batches:
    """Size of the batch in every call of a pipeline's denoiser."""

    def __init__(self, pipe: DiffusionPipeline) -> None:
        self.sizes: list[int] = []
        _, denoiser = find_denoiser(pipe)
        denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: self.sizes.append(
                (args[0] if args else kwargs["hidden_states"]).shape[0]
            ),
            with_kwargs=True,
        )


@pytest.fixture
def ready(pipe: DiffusionPipeline) -> DiffusionPipeline:
    return with_generation_defaults(pipe)


def test_the_folders_defaults_are_used(ready: DiffusionPipeline):
    batches = Batches(ready)
    ready("owl")
    guided = type(ready).__name__.startswith("PixArt")
    assert batches.sizes == [2, 2] if guided else [1, 1]


def test_arguments_win_by_keyword(ready: DiffusionPipeline):
    batches = Batches(ready)
    ready("owl", num_inference_steps=3, guidance_scale=5.0)
    assert batches.sizes == [2, 2, 2]


def test_arguments_win_by_position(unet_pipe: DiffusionPipeline):
    batches = Batches(with_generation_defaults(unet_pipe))
    unet_pipe("owl", 16, 16, 3)
    assert batches.sizes == [1, 1, 1]


def test_the_images_are_those_of_the_explicit_call(unet_folder: Path):
    def image(pipe: DiffusionPipeline, **arguments: object) -> np.ndarray:
        noise = torch.Generator().manual_seed(0)
        return pipe("owl", generator=noise, output_type="np", **arguments).images

    explicit = image(load_pipeline(unet_folder), num_inference_steps=2, guidance_scale=1.0)
    ready = with_generation_defaults(load_pipeline(unet_folder))
    assert np.array_equal(image(ready), explicit)


def test_the_class_keeps_its_name_and_kind(unet_pipe: DiffusionPipeline):
    ready = with_generation_defaults(unet_pipe)
    assert ready is unet_pipe
    assert isinstance(ready, StableDiffusionPipeline)
    assert type(ready).__name__ == "StableDiffusionPipeline"
    assert type(ready).__doc__ == StableDiffusionPipeline.__doc__
    assert inspect.signature(ready.__call__) == inspect.signature(unet_pipe.__call__)


def test_the_stock_class_is_not_touched(unet_folder: Path):
    before = StableDiffusionPipeline.__call__
    with_generation_defaults(load_pipeline(unet_folder))
    assert StableDiffusionPipeline.__call__ is before
    assert type(load_pipeline(unet_folder)) is StableDiffusionPipeline


def test_saving_writes_the_stock_class(unet_pipe: DiffusionPipeline, tmp_path: Path):
    with_generation_defaults(unet_pipe).save_pretrained(tmp_path)
    assert type(load_pipeline(tmp_path)) is StableDiffusionPipeline


def test_a_copy_keeps_the_defaults(unet_pipe: DiffusionPipeline):
    duplicate = copy.copy(with_generation_defaults(unet_pipe))
    batches = Batches(duplicate)
    duplicate("owl")
    assert batches.sizes == [1, 1]


def test_without_generation_json_nothing_changes(unet_copy: Path):
    (unet_copy / "generation.json").unlink()
    assert type(with_generation_defaults(load_pipeline(unet_copy))) is StableDiffusionPipeline


def test_a_pipeline_from_memory_has_no_defaults():
    pipe = with_generation_defaults(tiny.tiny_stable_diffusion())
    assert type(pipe) is StableDiffusionPipeline


def test_a_malformed_file_is_reported_at_once(unet_copy: Path):
    tiny.write_generation(unet_copy, num_inference_steps=-1)
    with pytest.raises(ModelError, match=r"generation\.json: field num_inference_steps"):
        with_generation_defaults(load_pipeline(unet_copy))
