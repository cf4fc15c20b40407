"""Pins and exclusions as text, and which layers they name."""

from __future__ import annotations

import pytest

from mezzotint.errors import UsageError
from mezzotint.plan import Choice
from mezzotint.recipes.restrictions import Pin, Restrictions

LAYERS = ("conv_in", "mid.to_q", "mid.to_k", "conv_out")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv_in=int8/channel", Pin("", "conv_in", "int8/channel")),
        ("*.to_k=lut4/channel:float", Pin("", "*.to_k", "lut4/channel", "float")),
        (r"re:mid\.(?=to_k).*=float", Pin("", r"re:mid\.(?=to_k).*", "float")),
    ],
)
def test_a_pin_is_a_pattern_and_formats(text, expected):
    found = Pin.of(text)
    assert (found.pattern, found.weight, found.activation) == (
        expected.pattern,
        expected.weight,
        expected.activation,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv_in", "is not of the form"),
        ("=int8/channel", "is not of the form"),
        ("conv_in=", "is not of the form"),
        ("conv_in=int9/channel", "pin 'conv_in=int9/channel'"),
        ("conv_in=int8/channel:int99/token", "pin 'conv_in=int8/channel:int99/token'"),
        ("conv_in=float:int8/token", "goes with a quantized weight"),
        ("re:(=int8/channel", r"pin 're:\(=int8/channel': .* not a valid regular .*; mend it, or"),
    ],
)
def test_malformed_pins_are_named(text, message):
    with pytest.raises(UsageError, match=message):
        Pin.of(text)


def test_a_text_is_no_list_of_texts():
    with pytest.raises(UsageError, match="pin: is 'a=int8/channel'; give a tuple"):
        Restrictions.of("a=int8/channel", ())


def test_a_malformed_exclusion_is_named_before_there_are_layers():
    with pytest.raises(UsageError, match=r"exclude 're:\[': .* is not a valid regular expression"):
        Restrictions.of((), ("conv_in", "re:["))


def test_the_last_pin_of_a_layer_holds():
    found = Restrictions.of(("mid=int8/channel", "*.to_k=int4/channel"), ())
    pins = {name: found.pin(name) for name in LAYERS}
    assert {name: pin.weight for name, pin in pins.items() if pin} == {
        "mid.to_q": "int8/channel",
        "mid.to_k": "int4/channel",
    }


def test_a_layer_that_is_excluded_or_pinned_to_float_stays_floating():
    found = Restrictions.of(("mid.to_q=float",), ("conv_*",))
    assert found.reasons(LAYERS) == {
        "conv_in": "stays floating: excluded by 'conv_*'",
        "mid.to_q": "stays floating: pin 'mid.to_q=float'",
        "conv_out": "stays floating: excluded by 'conv_*'",
    }
    completed = found.completed({"mid.to_k": Choice("int4/channel")}, LAYERS)
    assert [*completed] == [*LAYERS]
    assert not completed["conv_in"].quantized


@pytest.mark.parametrize(
    ("pin", "exclude", "message"),
    [
        ((), ("nowhere.*",), "exclude 'nowhere.*': names no layer .* `mezzotint inspect"),
        (("nowhere=int8/channel",), (), "pin 'nowhere=int8/channel': names no layer"),
        ((), ("*",), "every layer stays floating"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(pin, exclude, message):
    with pytest.raises(UsageError, match=message.replace(".*'", r"\.\*'")):
        Restrictions.of(pin, exclude).check(LAYERS)


def test_a_pinned_layer_chooses_among_the_inputs_that_the_pin_allows():
    formats = (
        Choice("int4/channel", "int8/token"),
        Choice("int2/channel", "int8/token"),
        Choice("int4/channel"),
        Choice(),
    )
    assert Pin.of("x=lut5/channel").choices(formats) == (
        Choice("lut5/channel", "int8/token"),
        Choice("lut5/channel"),
    )
    assert Pin.of("x=lut5/channel:float").choices(formats) == (Choice("lut5/channel"),)
    other = Choice("lut5/channel", "uint8/tensor")
    assert Pin.of("x=lut5/channel:uint8/tensor").choices(formats) == (other,)
    with pytest.raises(UsageError, match="step_scales"):
        Pin.of("x=lut5/channel:uint4/step").choices(formats)
