import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.allocation.files import read_program, read_scores, read_sizes, write_bits
from mezzotint.errors import UsageError

SUFFIXES = pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
layer_names = st.text("abc._0", min_size=1, max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def file(tmp_path):
    """Write a text, or a value as the suffix says."""

    def write(content, name="scores.yaml"):
        path = tmp_path / name
        if not isinstance(content, str):
            content = json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)
        path.write_text(content)
        return path

    return write


@SUFFIXES
@given(layers=st.dictionaries(layer_names, st.tuples(numbers, numbers), min_size=1))
def test_scores_are_read_as_a_list_or_by_bits(suffix, layers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    expected = {name: {2: low, 8: high} for name, (low, high) in layers.items()}
    as_lists = {name: list(pair) for name, pair in layers.items()}
    by_bits = {name: {8: high, 2: low} for name, (low, high) in layers.items()}
    dump = json.dumps if suffix == "json" else yaml.safe_dump
    for content in (as_lists, by_bits):
        path = folder / f"scores.{suffix}"
        path.write_text(dump(content))
        assert read_scores(path, (2, 8)) == expected


@SUFFIXES
@given(bits=st.dictionaries(layer_names, st.integers(1, 16), min_size=1))
def test_bits_are_read_back_as_written_and_in_order(suffix, bits, tmp_path_factory):
    path = tmp_path_factory.mktemp("bits") / f"bits.{suffix}"
    write_bits(path, bits)
    assert list(read_sizes(path).items()) == list(bits.items())


def test_numbers_may_be_as_small_as_any_program_writes_them(file):
    path = file("a: [1e-05, -2E+3]\nb: [.5e-2, 3]\n")
    assert read_scores(path, (4, 8)) == {"a": {4: 1e-5, 8: -2000.0}, "b": {4: 0.005, 8: 3.0}}


def test_merged_yaml_keys_may_be_overridden(file):
    path = file("a: &x {4: 1, 8: 2}\nb: {<<: *x, 8: 5}\n")
    assert read_scores(path, (4, 8)) == {"a": {4: 1.0, 8: 2.0}, "b": {4: 1.0, 8: 5.0}}


def test_bits_of_thousands_of_digits_are_no_bits(file):
    with pytest.raises(UsageError, match="are no bits"):
        read_scores(file({"a": {"9" * 5000: 1.0}}, "scores.json"), (4, 8))


def test_nothing_is_left_behind_where_writing_fails(tmp_path):
    with pytest.raises(UsageError, match=r"neither \.yaml nor \.json"):
        write_bits(tmp_path / "bits.txt", {"a": 4})
    assert list(tmp_path.iterdir()) == []


class TestGroups:
    @pytest.fixture
    def files(self, file):
        scores = {"ff.a": [1.0, 2.0, 3.0], "ff.b": [1.0, 2.0, 3.0], "conv": [0.0, 1.0, 2.0]}
        sizes = {"ff.a": 10, "ff.b": 20.5, "conv": 3}
        return file(scores), file(sizes, "sizes.json")

    def test_hold_every_layer(self, files):
        group = read_program(*files, (2, 4, 8))
        assert group.scores["ff.a"] == {2: 1.0, 4: 2.0, 8: 3.0}
        assert group.sizes == {"ff.a": 10, "ff.b": 20.5, "conv": 3}

    def test_are_restricted_to_candidates(self, files):
        assert read_program(*files, (2, 4, 8), candidates=(4, 8)).scores["conv"] == {4: 1.0, 8: 2.0}

    @pytest.mark.parametrize(
        ("only", "exclude", "expected"),
        [
            (("ff",), (), {"ff.a", "ff.b"}),
            ((), ("ff.a", "conv"), {"ff.b"}),
            (("ff", "conv"), ("re:.*b",), {"ff.a", "conv"}),
        ],
        ids=["only", "exclude", "both"],
    )
    def test_are_restricted_by_patterns(self, files, only, exclude, expected):
        group = read_program(*files, (2, 4, 8), only=only, exclude=exclude)
        assert set(group.scores) == set(group.sizes) == expected

    def test_sizes_of_layers_that_the_patterns_leave_out_are_welcome(self, file):
        scores, sizes = file({"ff": [1.0]}), file({"ff": 1, "conv": 1}, "sizes.yaml")
        assert set(read_program(scores, sizes, (4,), only=("ff",)).scores) == {"ff"}

    def test_candidates_are_among_the_bits(self, files):
        with pytest.raises(UsageError, match="candidates: 4,6 are not all among the bits 2,4,8"):
            read_program(*files, (2, 4, 8), candidates=(4, 6))

    def test_a_pattern_without_layers_is_named(self, files):
        with pytest.raises(UsageError, match=r"'up_blocks' names no layer of .*scores\.yaml"):
            read_program(*files, (2, 4, 8), exclude=("up_blocks",))

    def test_some_layer_must_be_left(self, files):
        with pytest.raises(UsageError, match="leave no layer"):
            read_program(*files, (2, 4, 8), exclude=("*",))

    @pytest.mark.parametrize(
        ("scores", "sizes", "lacks"),
        [({"a": [1.0]}, {"a": 1, "b": 1}, "scores"), ({"a": [1.0], "b": [1.0]}, {"a": 1}, "sizes")],
        ids=["scores", "sizes"],
    )
    def test_a_layer_of_one_file_only_is_named(self, file, scores, sizes, lacks):
        paths = file(scores), file(sizes, "sizes.yaml")
        with pytest.raises(UsageError, match=rf"{lacks}\.yaml: lacks layer 'b', which is in"):
            read_program(*paths, (4,))


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: [1, 2]\na: [1, 2]\n", r"'a' \(line 2\) occurs twice"),
            ("a: {4: 1, 4: 2, 8: 3}\n", r"4 \(line 1\) occurs twice"),
            ("a: {4: 1, '4': 2}\n", "layer 'a': has two scores at the same bits"),
            ("a: [1, .nan]\n", "layer 'a': its score at 8 bits: is nan"),
            ("a: [1, .inf]\n", "layer 'a': its score at 8 bits: is inf"),
            ("a: [1, true]\n", "layer 'a': its score at 8 bits: is True"),
            ("a: [1, two]\n", "layer 'a': its score at 8 bits: is 'two'"),
            ("a: [1, null]\n", "layer 'a': its score at 8 bits: is None"),
            ("a: [1]\n", "layer 'a': has 1 scores for 2 widths; give one for each of 4,8"),
            ("a: 1\n", "layer 'a': is 1; give a list of scores"),
            ("a: {4: 1}\n", "layer 'a': has no score at 8 bits"),
            ("a: {4: 1, 8: 2, 6: 1}\n", "layer 'a': has a score at 6 bits, which are not among"),
            ("a: {4: 1, eight: 2}\n", "layer 'a': 'eight' are no bits"),
            ("1: [1, 2]\n", "layer 1: is not a name; put it in quotes"),
            ("", "holds no layers"),
            ("[a, b]", "holds no layers"),
            ("a: [1, 2\nb: 3", r"not valid YAML \(line \d"),
            ("a: !!python/object/apply:os.getcwd []", r"not valid YAML \(line 1: could not"),
            ("a: 2024-99-99\n", "not usable"),
            ("a: !!timestamp 1\n", "not usable .*a value is not of its tag"),
            ("a: !!int ''\n", "not usable .*a value is not of its tag"),
            ("a: !!float ''\n", "not usable"),
            ("a: !!binary 'x'\n", "not usable|not valid"),
            ("a: !!bool x\n", "not usable .*a value is not of its tag"),
            ("? [a]\n: 1\n", "not valid YAML"),
            ("a: \x07\n", "not usable"),
        ],
    )
    def test_in_yaml_name_the_file_and_the_layer(self, file, text, message):
        with pytest.raises(UsageError, match=rf"scores\.yaml: {message}"):
            read_scores(file(text), (4, 8))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"a": [1, 2], "a": [1, 2]}', "'a' occurs twice"),
            ('{"a": {"4": 1, "8": 2, "4": 2}}', "'4' occurs twice"),
            ('{"a": [1, NaN]}', "layer 'a': its score at 8 bits: is nan"),
            ('{"a": [1, 1e999]}', "layer 'a': its score at 8 bits: is inf"),
            ('{"a": {"4": 1, "8.0": 2}}', "layer 'a': '8.0' are no bits"),
            ('{"a": [1, 2]', r"not valid JSON \(line 1"),
            ("[" * 100_000, "not usable"),
            ('{"a": [1, 1' + "0" * 5000 + "]}", "not usable"),
        ],
    )
    def test_in_json_name_the_file_and_the_layer(self, file, text, message):
        with pytest.raises(UsageError, match=rf"scores\.json: {message}"):
            read_scores(file(text, "scores.json"), (4, 8))

    @pytest.mark.parametrize("size", ["-1", ".nan", "large", "false", "[1]"])
    def test_in_sizes_name_the_layer(self, file, size):
        with pytest.raises(UsageError, match=r"sizes\.yaml: layer 'a': its size"):
            read_sizes(file(f"a: {size}\n", "sizes.yaml"))

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(UsageError, match=r"nowhere\.yaml: no such file"):
            read_sizes(tmp_path / "nowhere.yaml")

    def test_a_file_that_is_no_text_is_named(self, tmp_path):
        (tmp_path / "sizes.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match=r"sizes\.yaml: cannot be read"):
            read_sizes(tmp_path / "sizes.yaml")

    def test_a_file_of_another_kind_is_named(self, file):
        with pytest.raises(UsageError, match=r"scores\.toml: is neither \.yaml nor \.json"):
            read_scores(file("a = 1", "scores.toml"), (4, 8))

    @pytest.mark.parametrize("bits", [(), (0, 4), (4, 4)], ids=["none", "zero", "twice"])
    def test_widths_that_are_none_are_refused(self, file, bits):
        with pytest.raises(UsageError, match=r"bits: are .*; give distinct whole numbers"):
            read_scores(file({"a": [1, 2]}), bits)
