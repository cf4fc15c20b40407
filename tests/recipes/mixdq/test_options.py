"""The options as values, and as text."""

import pytest

from mezzotint.errors import UsageError
from mezzotint.formats import MSE
from mezzotint.recipes import MixDQ, options_help, parse_options, recipe_named

MIXDQ = recipe_named("mixdq")


@pytest.mark.parametrize("field", ["content_weight_bits", "quality_weight_bits", "activation_bits"])
@pytest.mark.parametrize("widths", [(), (9,), (0, 4)], ids=str)
def test_widths_out_of_their_domain_are_refused(field: str, widths: tuple[int, ...]):
    with pytest.raises(UsageError, match=field):
        MixDQ(**{field: widths})


@pytest.mark.parametrize(
    ("field", "value"),
    [("calibration_prompts", 0), ("selection_prompts", 0), ("tolerance", -1.0),
     ("tolerance", float("nan")), ("momentum", 1.0), ("momentum", float("nan")),
     ("joint_plans", 0), ("protect", 1.0),
     ("protect", -0.1), ("cache_bytes", -1)],
)  # fmt: skip
def test_numbers_out_of_their_domain_are_refused(field: str, value: float):
    with pytest.raises(UsageError, match=field):
        MixDQ(**{field: value})


@pytest.mark.parametrize("field", ["split", "metric", "activation", "shortcuts", "counting"])
def test_words_that_are_no_choice_are_refused(field: str):
    with pytest.raises(UsageError, match=f"{field}: is 'other'; it is one of"):
        MixDQ(**{field: "other"})


def test_one_metric_has_nothing_to_join():
    with pytest.raises(UsageError, match="split: joint"):
        MixDQ(metric="sqnr", split="joint")


def test_symmetric_weights_have_signed_formats():
    assert MixDQ(symmetric=True).weight_format(4) == "int4/channel"
    assert MixDQ(symmetric=False).weight_format(4) == "uint4/channel"


def test_static_inputs_have_one_range_per_tensor():
    assert MixDQ(activation="tensor").activation_format(8) == "uint8/tensor"
    assert MixDQ(activation="token").activation_format(8) == "int8/token"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"bos": "false"}, MixDQ(bos=False)),
        ({"split": "joint"}, MixDQ(split="joint")),
        ({"content_weight_bits": "3, 5"}, MixDQ(content_weight_bits=(3, 5))),
        ({"tolerance": "0.02"}, MixDQ(tolerance=0.02)),
        ({"momentum": "none"}, MixDQ(momentum=None)),
        ({"search": "mse"}, MixDQ(search=MSE)),
        ({"content": "ff,attn2"}, MixDQ(content=("ff", "attn2"))),
    ],
    ids=str,
)
def test_options_are_read_from_text(text: dict[str, str], expected: MixDQ):
    assert parse_options(MIXDQ, text) == expected


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"--boss: recipe 'mixdq' has no such option.*--bos"):
        parse_options(MIXDQ, {"boss": "true"})


@pytest.mark.parametrize(
    "text",
    [{"bos": "maybe"}, {"split": "half"}, {"calibration_prompts": "many"}, {"search": "best"}],
    ids=str,
)
def test_text_that_is_no_value_is_refused(text: dict[str, str]):
    with pytest.raises(UsageError, match=next(iter(text))):
        parse_options(MIXDQ, text)


def test_every_option_of_every_recipe_is_explained():
    for name in ("auto", "mixdq"):
        assert all(option.text for option in options_help(recipe_named(name)))
