import json

import pytest
from diffusers.quantizers.auto import DiffusersAutoQuantizer

import mezzotint as mz
from mezzotint.checkpoint import MezzotintQuantizer
from mezzotint.errors import PlanError, UsageError
from tests.models import tiny

PLAN = mz.Plan({"conv_in": mz.Choice("int4/channel", "int8/token"), "conv_out": mz.Choice()})

SHORTCUTS = {n for n, _ in tiny.tiny_unet().named_modules() if n.endswith(".conv_shortcut")}


def kept_floating(**fields: object) -> set[str]:
    """The layers that a config leaves alone."""
    plan = mz.MezzotintConfig(**fields).plan_for(tiny.tiny_unet())
    return plan.choices.keys() - plan.quantized.keys()


@pytest.mark.parametrize(
    "config",
    [
        mz.MezzotintConfig(PLAN),
        mz.MezzotintConfig(PLAN, sha256={"conv_in.bias": "0" * 64}),
        mz.MezzotintConfig(weight_bits=3, act_bits=8, modules_to_not_convert=["conv_out"]),
    ],
    ids=["plan", "digests", "widths"],
)
def test_the_dictionary_is_json_and_builds_the_same_config(config: mz.MezzotintConfig):
    stored = json.loads(config.to_json_string())
    assert stored == config.to_dict()
    assert stored["quant_method"] == "mezzotint"
    assert mz.MezzotintConfig.from_dict(stored).to_dict() == stored


def test_diffusers_builds_our_quantizer_from_the_dictionary():
    quantizer = DiffusersAutoQuantizer.from_config(mz.MezzotintConfig(PLAN).to_dict())
    assert isinstance(quantizer, MezzotintQuantizer)


def test_the_dictionary_is_the_callers_own():
    config = mz.MezzotintConfig(PLAN)
    config.to_dict()["plan"]["layers"].clear()
    assert config.to_dict()["plan"]["layers"]


def test_the_default_is_eight_bits_everywhere():
    plan = mz.MezzotintConfig().plan_for(tiny.tiny_unet())
    assert set(plan.choices.values()) == {mz.Choice("int8/channel")}


def test_a_misspelled_field_is_refused():
    with pytest.raises(UsageError, match="unknown field 'weight_bit'; there are plan, weight_bits"):
        mz.MezzotintConfig(weight_bit=4)


def test_fields_of_a_newer_version_are_passed_over():
    stored = mz.MezzotintConfig(PLAN).to_dict() | {"colour": "blue"}
    assert mz.MezzotintConfig.from_dict(stored).plan_for(tiny.tiny_unet()) == PLAN


def test_a_malformed_plan_names_place_and_field():
    config = mz.MezzotintConfig({"version": 1, "layers": {"conv_in": {"weight": "int99/channel"}}})
    with pytest.raises(PlanError, match=r"^quantization_config: plan: layer conv_in: .*int99"):
        config.plan_for(tiny.tiny_unet())


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("conv_out", {"conv_out"}),
        ("time_embedding", {"time_embedding.linear_1", "time_embedding.linear_2"}),
        ("*.conv_shortcut", SHORTCUTS),
        ("re:time_embedding.linear_[2-9]", {"time_embedding.linear_2"}),
    ],
    ids=["exact name", "module around", "glob", "regular expression"],
)
def test_modules_to_not_convert_stay_floating(pattern: str, kept: set[str]):
    assert kept_floating(modules_to_not_convert=[pattern]) == kept


def test_several_patterns_add_up():
    patterns = ["conv_in", "re:conv_ou."]
    assert kept_floating(modules_to_not_convert=patterns) == {"conv_in", "conv_out"}


@pytest.mark.parametrize(
    "pattern", ["conv_on", "conv", "ime_embedding", "*.nothing", "re:conv", "conv_in.weight"]
)
def test_a_pattern_that_names_no_layer_is_refused(pattern: str):
    with pytest.raises(UsageError, match="names no Linear or Conv2d of UNet2DConditionModel"):
        kept_floating(modules_to_not_convert=[pattern])
