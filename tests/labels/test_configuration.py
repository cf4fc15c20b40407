"""Configurations are values, with a text that names them in journals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import LabelError, UsageError
from mezzotint.labels import Configuration

KEYS = ("a", "b", "c/first")
FORMATS = ("int3/channel", "int4/channel", "lut2/channel")


@given(st.lists(st.sampled_from(FORMATS), min_size=3, max_size=3))
def test_the_text_stands_for_the_configuration(drawn):
    found = Configuration(dict(zip(KEYS, drawn, strict=True)))
    assert Configuration.of_text(found.text(KEYS, FORMATS), KEYS, FORMATS) == found
    assert found.indices(KEYS, FORMATS) == tuple(map(FORMATS.index, drawn))


def test_equal_ones_are_one_in_whatever_order():
    one = Configuration({"a": "int3/channel", "b": "int4/channel"})
    other = Configuration({"b": "int4/channel", "a": "int3/channel"})
    assert one == other
    assert len({one, other}) == 1
    assert one.digest == other.digest
    assert one.digest != Configuration({"a": "int4/channel", "b": "int4/channel"}).digest
    assert one == {"a": "int3/channel", "b": "int4/channel"}


def test_a_digest_is_the_same_in_every_process():
    assert Configuration({"a": "int3/channel"}).digest == "ce303e3a55c9f919"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"a": FORMATS[0], "b": FORMATS[0]}, "weight c/first: is nothing"),
        (dict.fromkeys(KEYS, "int8/channel"), "weight a: is int8/channel"),
    ],
    ids=["missing", "unknown"],
)
def test_formats_are_named_for_every_weight(choices, message):
    with pytest.raises(UsageError, match=message):
        Configuration(choices).text(KEYS, FORMATS)


def test_there_are_characters_for_so_many_formats():
    with pytest.raises(UsageError, match="are 63; give 62 at most"):
        Configuration({}).text((), [f"int8/group{each}" for each in range(63)])


@pytest.mark.parametrize("text", ["", "01", "0123", "003", "0é0", "0-0"])
def test_a_text_of_something_else_is_refused(text):
    with pytest.raises(LabelError, match="no configuration of 3 weights"):
        Configuration.of_text(text, KEYS, FORMATS)
