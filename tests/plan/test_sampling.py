"""Images to generate: prompts or a number, seeds, and arguments that go along."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mezzotint.errors import UsageError
from mezzotint.plan import Sampling
from mezzotint.plan.sampling import SamplingModel

BLACK = Image.new("RGB", (4, 4))


def test_a_string_is_one_prompt():
    assert Sampling("a red owl").prompts == ("a red owl",)


def test_a_list_of_prompts_is_kept_as_a_tuple():
    assert Sampling(["owl", "fox"]) == Sampling(("owl", "fox"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "prompts: none given"),
        ({"prompts": 3}, "prompts: is a int"),
        ({"prompts": ["owl", 3]}, "prompts: number 1 is a int"),
        ({"count": 0}, "count: 0 is out of range"),
        ({"prompts": "owl", "count": 2}, "count: is 2 for 1 prompts"),
    ],
    ids=["nothing", "number", "numbers", "no-images", "both"],
)
def test_prompts_or_a_count_are_needed(fields: dict[str, object], message: str):
    with pytest.raises(UsageError, match=f"^{message}"):
        Sampling(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": "4"}, "steps: '4' is a str; give a whole number"),
        ({"steps": 4.0}, "steps: 4.0 is a float; give a whole number"),
        ({"guidance": "5"}, "guidance: '5' is a str; give a number"),
        ({"guidance": True}, "guidance: True is a bool; give a number"),
        ({"seed": None}, "seed: None is a NoneType; give a whole number"),
        ({"batch": "8"}, "batch: '8' is a str; give a whole number"),
        ({"count": "2"}, "count: '2' is a str; give a whole number"),
        ({"seed": 2**70}, f"seed: {2**70} is out of range; use 0 to {2**63 - 2}"),
        ({"seed": -1}, f"seed: -1 is out of range; use 0 to {2**63 - 2}"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(*value.items()),
)
def test_numbers_are_checked(fields: dict[str, object], message: str):
    with pytest.raises(UsageError) as caught:
        Sampling("owl", **fields)
    assert str(caught.value) == message


def test_numbers_of_numpy_are_taken_as_pythons_own():
    found = Sampling("owl", seed=np.int64(3), steps=np.int32(2), guidance=np.float32(1.5))
    assert json.loads(json.dumps(found.to_dict())) == Sampling("owl", 3, 2, 1.5).to_dict()


def test_the_highest_seed_leaves_room_for_every_image():
    highest = 2**63 - 3
    assert Sampling(("owl", "fox"), seed=highest).part(1, 2).seed == highest + 1
    with pytest.raises(UsageError, match=f"use 0 to {highest}$"):
        Sampling(("owl", "fox"), seed=highest + 1)


def test_images_without_prompts_are_counted():
    assert len(Sampling(count=3)) == 3
    assert Sampling(prompts=["owl"], count=1) == Sampling("owl")


def test_batches_take_prompts_seeds_and_arguments_along():
    whole = Sampling(
        ("a", "b", "c"), seed=5, batch=2, call_kwargs={"prompt_2": ["A", "B", "C"], "clip_skip": 1}
    )
    first, second = whole.batches()
    assert (first.prompts, first.seed, first.call_kwargs["prompt_2"]) == (("a", "b"), 5, ["A", "B"])
    assert (second.prompts, second.seed, second.call_kwargs["prompt_2"]) == (("c",), 7, ["C"])
    assert second.call_kwargs["clip_skip"] == 1


def test_repeated_images_have_noise_of_their_own():
    found = Sampling(count=2, seed=3, call_kwargs={"class_labels": [7, 8]}).repeated(5)
    assert (len(found), found.seed) == (5, 3)
    assert found.call_kwargs["class_labels"] == [7, 8, 7, 8, 7]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(("owl", "fox"), seed=3, steps=2, guidance=1.5, batch=1),
        Sampling(count=3, call_kwargs={"class_labels": [1, 2, 3]}),
        Sampling("owl", call_kwargs={"image": BLACK, "size": (4, 4)}),
    ],
    ids=["prompts", "count", "picture"],
)
def test_json_compares_equal(sampling: Sampling):
    assert SamplingModel.model_validate(sampling.to_dict()).value() == sampling


def test_json_of_prompts_alone_is_that_of_earlier_versions():
    assert set(Sampling("owl").to_dict()) == {"prompts", "seed", "steps", "guidance", "batch"}


def test_further_arguments_take_the_place_of_equally_named_ones():
    before = Sampling(("a", "b"), call_kwargs={"strength": 0.5, "prompt_2": ["A", "B"]})
    after = before.with_kwargs({"prompt_2": "C"})
    assert dict(after.call_kwargs) == {"strength": 0.5, "prompt_2": "C"}
    assert after.part(1, 2).call_kwargs["prompt_2"] == "C"
