"""Pipelines that take more than a prompt, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    StableDiffusionImg2ImgPipeline,
    UNet2DModel,
)
from diffusers.utils import BaseOutput
from PIL import Image

from mezzotint.errors import ModelError, UsageError
from mezzotint.models import Sampling, generate, record_calls, usual_sampling
from mezzotint.models.sampling import flat_frames
from mezzotint.plan import CallSelection
from mezzotint.plan.sampling import SamplingModel
from tests.models import tiny

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for seed in range(3)
]


@pytest.fixture(scope="module")
def image_to_image() -> StableDiffusionImg2ImgPipeline:
    parts = tiny.tiny_stable_diffusion().components
    parts["unet"].eval()
    return StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)


@pytest.fixture(scope="module")
def classes(image_to_image) -> DiTPipeline:
    parts = {"vae": image_to_image.vae, "scheduler": DDIMScheduler()}
    return DiTPipeline(transformer=tiny.tiny_dit().eval(), id2label=None, **parts)


@pytest.fixture(scope="module")
def unconditional() -> DDPMPipeline:
    """Grey images, of noise alone."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return DDPMPipeline(unet, DDPMScheduler())


class Videos(DiffusionPipeline):
    """Frames of noise that depends on prompt and seed; no model."""

    def __init__(self) -> None:
        self.register_to_config()

    def __call__(
        self, prompt=None, num_frames=2, channels=3, generator=None, output_type="np"
    ) -> BaseOutput:
        sizes = (num_frames, 4, 5, channels)
        frames = [torch.rand(sizes, generator=each).numpy() for each in generator]
        return BaseOutput(frames=np.stack(frames))


SAMPLING = Sampling(
    ("owl", "fox", "cat"), steps=4, batch=2, call_kwargs={"image": PICTURES, "strength": 0.5}
)


def test_each_prompt_has_its_picture_whatever_the_batch(image_to_image):
    together = generate(image_to_image, replace(SAMPLING, batch=3)).astype(int)
    assert together.shape == (3, 16, 16, 3)
    assert np.abs(together - generate(image_to_image, SAMPLING)).max() <= 1
    alone = generate(image_to_image, SAMPLING.part(2, 3))
    assert np.abs(together[2] - alone[0]).max() <= 1


def test_one_picture_is_for_all_prompts(image_to_image):
    one = replace(SAMPLING, call_kwargs={"image": PICTURES[1], "strength": 0.5}, batch=1)
    assert np.array_equal(
        generate(image_to_image, one)[1], generate(image_to_image, SAMPLING.part(1, 2))[0]
    )


def test_arguments_reach_the_recorded_calls(image_to_image):
    (call,) = record_calls(image_to_image, replace(SAMPLING, batch=3), limit=1)
    swapped = SAMPLING.picked([2, 1, 0], seed=0)
    (other,) = record_calls(image_to_image, replace(swapped, batch=3), limit=1)
    assert not torch.equal(call.args[0], other.args[0])
    assert len(record_calls(image_to_image, SAMPLING, CallSelection(2, 2))) == 2


def test_an_unknown_argument_is_told_with_the_nearest(image_to_image):
    with pytest.raises(UsageError, match=r"strenght: .* no such argument; did you mean strength\?"):
        generate(image_to_image, replace(SAMPLING, call_kwargs={"strenght": 0.5}))


def test_a_missing_picture_is_told(image_to_image):
    with pytest.raises(ModelError, match=r"fails on its own call .* it takes image too: .*--call"):
        generate(image_to_image, Sampling("owl", steps=4))


def test_a_call_that_fails_is_told_with_what_was_given(image_to_image):
    pipe = tiny.tiny_stable_diffusion()
    with pytest.raises(
        ModelError, match=r"check what call_kwargs \(--call\) gives as clip_skip, and"
    ):
        generate(pipe, Sampling("owl", steps=1, call_kwargs={"clip_skip": 99}))
    with pytest.raises(ModelError, match=r"gives as image, strength, clip_skip, and"):
        generate(image_to_image, SAMPLING.with_kwargs({"clip_skip": 99}))


def test_digests_in_the_place_of_pictures_are_told(image_to_image):
    known = SamplingModel.model_validate(SAMPLING.to_dict()).value()
    with pytest.raises(UsageError, match="image: only its digest is known"):
        generate(image_to_image, known)


def test_class_labels_are_one_for_each_or_one_for_all(classes):
    asked = Sampling(count=3, steps=1, guidance=1.0, batch=2, call_kwargs={"class_labels": 4})
    all_alike = generate(classes, asked)
    each = generate(classes, asked.with_kwargs({"class_labels": [4, 4, 5]}))
    assert np.array_equal(all_alike[:2], each[:2])
    assert not np.array_equal(all_alike[2], each[2])


def test_usual_labels_are_spread_over_all_classes(classes):
    assert usual_sampling(classes, ("",) * 4).call_kwargs["class_labels"] == [0, 2, 5, 7]
    given = usual_sampling(classes, ("",) * 3, {"class_labels": [6, 7]})
    assert given.call_kwargs["class_labels"] == [6, 7, 6]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling("owl"), "prompts: DiTPipeline takes none; give Sampling\\(count="),
        (Sampling(count=2), "call_kwargs: DiTPipeline needs class_labels"),
    ],
    ids=["prompts", "labels"],
)
def test_what_a_pipeline_of_classes_needs_is_told(classes, sampling: Sampling, message: str):
    with pytest.raises(UsageError, match=message):
        generate(classes, sampling)


def test_a_pipeline_of_text_needs_prompts(image_to_image):
    with pytest.raises(UsageError, match="prompts: StableDiffusionImg2ImgPipeline needs some"):
        generate(image_to_image, Sampling(count=2))


def test_images_of_noise_alone_are_counted(unconditional):
    images = generate(unconditional, Sampling(count=3, steps=2, batch=2))
    assert images.shape == (3, 8, 8, 3)
    assert np.array_equal(images[..., 0], images[..., 2])
    assert not np.array_equal(images[0], images[2])
    assert len(record_calls(unconditional, usual_sampling(unconditional, ("",) * 2), limit=3)) == 3


def test_videos_have_their_frames():
    asked = Sampling(("owl", "fox", "cat"), batch=2, call_kwargs={"num_frames": 3})
    videos = generate(Videos(), asked)
    assert videos.shape == (3, 3, 4, 5, 3)
    assert np.array_equal(flat_frames(videos)[4], videos[1, 1])


def test_other_numbers_of_images_than_of_seeds_are_told():
    class Pairs(Videos):
        def __call__(self, prompt=None, generator=None, output_type="np") -> BaseOutput:
            return super().__call__(generator=[*generator, *generator])

    with pytest.raises(UsageError, match="Pairs made 4 images where 2 were asked for"):
        generate(Pairs(), Sampling(("owl", "fox")))


def test_what_are_no_colours_is_told():
    with pytest.raises(ModelError, match="Videos returned no RGB images or frames"):
        generate(Videos(), Sampling("owl", call_kwargs={"channels": 5}))


@pytest.mark.parametrize(("one", "other"), [("height", "width"), ("width", "height")])
def test_one_side_of_the_picture_needs_the_other(one: str, other: str):
    pipe = tiny.tiny_stable_diffusion()
    with pytest.raises(UsageError, match=f"{one}: is given without {other}; give both"):
        generate(pipe, Sampling("a", steps=1, call_kwargs={one: 16}))
