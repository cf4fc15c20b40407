import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import ProfileError
from mezzotint.plan import Choice
from mezzotint.profiling import (
    Figure,
    LayerProfile,
    Machine,
    Profile,
    slowest_table,
    totals_table,
)

MILLISECONDS = st.floats(0, 1e6)


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    choices = (Choice(), Choice("int4/channel"), Choice("int8/channel", "int8/token"))
    names = draw(st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True))
    layers = {}
    for name in names:
        figures = {choice: Figure(draw(MILLISECONDS), draw(st.text())) for choice in choices}
        shape = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4)))
        runs = tuple(draw(st.lists(st.text(), max_size=2)))
        layers[name] = LayerProfile(shape, "float32", runs, figures)
    whole = draw(st.floats(1e-6, 1e6))
    return Profile(draw(st.none() | st.text()), "UNet", 2, Machine.here(), whole, layers)


@given(profile=profiles())
def test_json_gives_back_what_it_was_given(profile: Profile):
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


@given(profile=profiles())
def test_the_floating_total_is_the_whole_call(profile: Profile):
    assert math.isclose(profile.total(Choice()), profile.milliseconds, rel_tol=1e-6, abs_tol=1e-6)
    assert profile.choices[0] == Choice()


def test_a_file_gives_back_what_it_was_given(profile, tmp_path):
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile


def edited(profile: Profile, *path: str | int, value: object) -> dict:
    found = profile.to_dict()
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), 2, "field version: is 2, this program reads 1"),
        (("milliseconds",), 0, "field milliseconds"),
        (("milliseconds",), "fast", "field milliseconds"),
        (("batch",), 0, "field batch"),
        (("colour",), "red", "field colour"),
        (("layers",), {}, "field layers: is empty"),
        (("machine", "threads"), 0, r"field machine\.threads"),
        (("layers", "conv_in", "choices"), [], "layer conv_in: has no floating choice"),
        (("layers", "conv_in", "choices", 0, "milliseconds"), -1, r"conv_in\.choices\.0\.milli"),
        (("layers", "conv_in", "choices", 1, "weight"), "int99/channel", "layer conv_in: .*int99"),
        (("layers", "conv_in", "choices", 1, "weight"), "float", "conv_in: .* stands there twice"),
    ],
)
def test_what_is_no_profile_is_refused(profile, path, value, message):
    with pytest.raises(ProfileError, match=message) as caught:
        Profile.from_dict(edited(profile, *path, value=value), "p.json")
    assert str(caught.value).startswith("p.json: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}'])
def test_damaged_files_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"profile\.json"):
        Profile.load(path)
    with pytest.raises(ProfileError, match="no such file"):
        Profile.load(tmp_path / "none.json")


def test_tables_show_layers_and_totals(profile):
    slowest, totals = slowest_table(profile), totals_table(profile)
    assert slowest.row_count == len(profile.layers)
    assert totals.row_count == len(profile.choices)
    assert "1.00x" in next(iter(totals.columns[3].cells))
