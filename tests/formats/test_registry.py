import pytest

from mezzotint.errors import FormatError
from mezzotint.formats import (
    FLOAT,
    ActivationFormat,
    CodebookFormat,
    LutFormat,
    UniformFormat,
    parse_activation_format,
    parse_weight_format,
    registry,
)
from tests.formats.strategies import NAMES

ACTIVATIONS = [
    f"{kind}{width}/{granularity}"
    for kind in ("int", "uint")
    for width in range(2, 9)
    for granularity in ("tensor", "token")
]


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_format_is_known_by_its_name(name: str):
    found = parse_weight_format(name)
    assert found is not None
    assert (found.name, str(found)) == (name, name)
    assert parse_weight_format(found.name) == found


def test_the_name_says_everything():
    assert parse_weight_format("int4/channel") == UniformFormat(4, True, "channel")
    assert parse_weight_format("uint3/group64") == UniformFormat(3, False, "group", 64)
    assert parse_activation_format("uint8/tensor") == ActivationFormat(8, False, "tensor")


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_codebook_format_is_known_by_its_name(width: int, granularity: str):
    name = f"kmeans{width}/{granularity}"
    assert parse_weight_format(name) == CodebookFormat(width, granularity)
    assert CodebookFormat(width, granularity).name == name


@pytest.mark.parametrize("width", range(1, 7))
def test_a_lookup_format_is_known_by_its_name(width: int):
    name = f"lut{width}/channel"
    assert parse_weight_format(name) == LutFormat(width)
    assert LutFormat(width).name == name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_format_is_known_by_its_name(name: str):
    found = parse_activation_format(name)
    assert found is not None
    assert (found.name, str(found)) == (name, name)


def test_float_means_no_format():
    assert parse_weight_format(FLOAT) is None
    assert parse_activation_format(FLOAT) is None


UNKNOWN = (
    "",
    "int4",
    "Int4/channel",
    "int4/channels",
    "int4/group",
    "int4/group-8",
    " int4/channel",
    "int4/channel\n",
    "int/channel",
    "int4.0/channel",
    "fp8/tensor",
    "kmeans4",
    "kmeans4/group8",
    "ukmeans4/channel",
    "lut4",
    "lut4/tensor",
    "int4/tensor/float32",
    "int4/group64/float32",
    "int" + "9" * 5000 + "/channel",
)


@pytest.mark.parametrize("name", UNKNOWN, ids=lambda name: repr(name[:16]))
def test_an_unknown_name_is_refused_and_repeated(name: str):
    for parse in (parse_weight_format, parse_activation_format):
        with pytest.raises(FormatError) as caught:
            parse(name)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["int9/channel", "uint16/tensor", "int4/group1", "kmeans9/tensor", "lut7/channel"]
)
def test_numbers_out_of_their_domain_are_refused_with_the_name(name: str):
    with pytest.raises(FormatError, match=f"'{name}'.*(bits|group_size) is"):
        parse_weight_format(name)


@pytest.mark.parametrize("name", ["int1/token", "int9/tensor"])
def test_activation_widths_out_of_their_domain_are_refused_with_the_name(name: str):
    with pytest.raises(FormatError, match=f"'{name}'.*bits is"):
        parse_activation_format(name)


@pytest.mark.parametrize(
    "example", ["int4/channel", "lut3/channel", "kmeans4/channel", "mixed/int2:64,int3:128"]
)
def test_an_unknown_name_is_answered_with_known_ones(example: str):
    with pytest.raises(FormatError, match=example):
        parse_weight_format("q4")


@pytest.mark.parametrize("name", ["int04/channel", "int4/group064", "int0/channel", "int٤/channel"])
def test_a_number_has_one_spelling(name: str):
    with pytest.raises(FormatError, match="unknown weight format"):
        parse_weight_format(name)


def test_a_registered_parser_makes_a_new_name_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_PARSERS", list(registry._PARSERS))
    registry.register_weight_format(lambda name: UniformFormat(4) if name == "q4" else None)
    assert parse_weight_format("q4") == UniformFormat(4)
    assert parse_weight_format("int3/channel") == UniformFormat(3)
