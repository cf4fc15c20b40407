"""Further arguments of a pipeline's call: whose they are, what JSON keeps of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.errors import UsageError
from mezzotint.plan import CallKwargs

GREY = Image.new("RGB", (4, 3), (128, 128, 128))
BLACK = Image.new("RGB", (4, 3))


@pytest.mark.parametrize(
    ("name", "value", "each"),
    [
        ("strength", 0.5, False),
        ("negative_prompt", "blurred", False),
        ("negative_prompt", ["blurred", "dark"], True),
        ("image", [GREY, BLACK], True),
        ("image", GREY, False),
        ("image", [GREY, BLACK, GREY], False),
        ("original_size", (16, 16), False),
        ("timesteps", [999, 499], False),
        ("sigmas", [1.0, 0.5], False),
        ("image", torch.zeros(2, 3, 4, 4), True),
        ("image", np.zeros((2, 4, 4, 3)), True),
        ("image", torch.zeros(2, 4, 4), False),
        ("prompt_embeds", torch.zeros(2, 7, 5), True),
        ("pooled_prompt_embeds", torch.zeros(2, 5), True),
        ("prompt_embeds", torch.zeros(1, 7, 5), False),
    ],
)
def test_values_are_for_each_of_two_images_or_for_both(name: str, value: object, each: bool):
    assert (name in CallKwargs.of({name: value}, 2).each) is each


def test_images_are_picked_with_their_own_values():
    given = CallKwargs.of(
        {"image": [GREY, BLACK, GREY], "latents": torch.arange(3).view(3, 1), "strength": 0.5}, 3
    )
    picked = given.picked([1, 1])
    assert picked["image"] == [BLACK, BLACK]
    assert picked["latents"].flatten().tolist() == [1, 1]
    assert picked["strength"] == 0.5


def test_a_list_for_all_images_stays_one_where_it_happens_to_be_as_long_as_some():
    scales = CallKwargs.of({"controlnet_conditioning_scale": [0.5, 0.8]}, 3).picked([0, 2])
    assert scales.picked([1])["controlnet_conditioning_scale"] == [0.5, 0.8]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"strength": 0.5}, {"strength": 0.6}),
        ({"image": GREY}, {"image": BLACK}),
        ({"image": GREY}, {"image": GREY.convert("L")}),
        ({"image": torch.zeros(2, 3)}, {"image": torch.zeros(3, 2)}),
        ({"image": torch.zeros(2, 3)}, {"image": torch.zeros(2, 3, dtype=torch.bfloat16)}),
        ({"image": torch.zeros(2, 3)}, {"image": np.zeros((2, 3), np.float32)}),
        ({"size": (1, 2)}, {"size": [1, 2]}),
    ],
    ids=["number", "picture", "mode", "shape", "dtype", "array", "tuple"],
)
def test_equal_is_what_has_the_same_content(one: dict[str, object], other: dict[str, object]):
    first, same, second = (CallKwargs.of(each, 5) for each in (one, dict(one), other))
    assert first == same
    assert hash(first) == hash(same)
    assert first != second


GIVEN = {
    "image": [GREY, BLACK],
    "mask_image": BLACK,
    "embeds": torch.zeros(2, 3, dtype=torch.bfloat16),
    "size": (16, (8, 4)),
    "timesteps": [999, 499],
    "cross_attention_kwargs": {"scale": 0.5},
    "prompt_2": ["owl", "fox"],
    "nothing": None,
}


def test_json_has_everything_but_the_pictures():
    given = CallKwargs.of(GIVEN, 2)
    back = CallKwargs.from_dict(json.loads(json.dumps(given.to_dict())), 2)
    assert back == given
    assert set(back.absent) == {"image", "mask_image", "embeds"}
    assert given.absent == ()
    for name in ("size", "timesteps", "cross_attention_kwargs", "prompt_2", "nothing"):
        assert back[name] == GIVEN[name]
    assert back.each - set(back.absent) == {"prompt_2"}


def test_numpys_numbers_are_numbers():
    assert CallKwargs.of({"strength": np.float32(0.5)}, 1).to_dict() == {"strength": 0.5}


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"num_inference_steps": 4}, r"num_inference_steps is set by Sampling itself: .*steps="),
        ({"guidance_scale": 4.0}, r"guidance_scale .*guidance="),
        ({"generator": None}, r"generator .*seed="),
        ({"prompt": "owl"}, r"prompt .*prompts="),
        ({"output_type": "pil"}, r"output_type .*leave it out"),
        ({"image": Path("owl.png")}, r"image: is the path owl.png; .*PIL.Image.open"),
        ({"callback_on_step_end": print}, r"callback_on_step_end: is a builtin_function"),
        ({"image": [GREY, object()]}, r"image: is a object"),
        ({"strength": float("nan")}, r"strength: is nan"),
        ({"image": np.array([None])}, r"image: is an array of object"),
        ({"options": {"$shared": 1}}, r"options: has the key '\$shared'"),
        ({3: 4}, r"3 is no name"),
        ("strength=0.5", r"is a str; give a dictionary"),
    ],
)
def test_what_cannot_be_given_is_refused_with_the_remedy(values: object, advice: str):
    with pytest.raises(UsageError, match=f"^call_kwargs: {advice}"):
        CallKwargs.of(values, 2)


def test_arguments_of_other_images_are_refused():
    given = CallKwargs.of({"image": [GREY, BLACK]}, 2)
    with pytest.raises(UsageError, match="image has 2 values for 3 images"):
        CallKwargs.of(given, 3)


def test_a_damaged_digest_is_refused():
    with pytest.raises(UsageError, match="image: has a damaged digest"):
        CallKwargs.from_dict({"image": {"$sha256": 3, "what": "picture"}}, 1)
