import json

import pytest
import yaml

SCORES = {
    "ff.a": [0.0, 5.0, 6.0],
    "ff.b": [0.0, 1.0, 9.0],
    "conv": [-9.0, -1.0, -0.1],
}
SIZES = {"ff.a": 1, "ff.b": 1, "conv": 2}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "scores.yaml").write_text(yaml.safe_dump(SCORES, sort_keys=False))
    (tmp_path / "sizes.json").write_text(json.dumps(SIZES))
    return ["--scores", tmp_path / "scores.yaml", "--sizes", tmp_path / "sizes.json"]


@pytest.fixture
def output(tmp_path):
    return tmp_path / "work" / "bits.yaml"


@pytest.fixture
def allocate(run, files, output):
    """Allocate among 2, 4 and 8 bits; returns the summary and the file."""

    def invoke(*options):
        result = run("allocate", *files, "--bits", "2,4,8", "-o", output, *options, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout), yaml.safe_load(output.read_text())

    return invoke


def test_every_layer_gets_its_bits(allocate, output):
    summary, bits = allocate("--average", 5)
    assert bits == {"ff.a": 4, "ff.b": 8, "conv": 4}
    assert summary == {
        "output": str(output),
        "layers": {"2": 0, "4": 2, "8": 1},
        "average_bits": 5.0,
        "objective": 13.0,
        "gap": 0.0,
        "protected": [],
    }


def test_a_table_says_the_same(run, files, output):
    options = ["--bits", "2,4,8", "--average", 6, "--protect", 0.01]
    shown = run("allocate", *files, *options, "-o", output).stdout
    rows = {
        line.split("│")[1].strip(): line.split("│")[2].strip()
        for line in shown.splitlines()
        if line.startswith("│")
    }
    assert rows["layers at 4 bits"] == "1"
    assert rows["layers at 8 bits"] == "1"
    assert rows["layers protected"] == "1"
    assert rows["average bits"] == "6.0000"
    assert rows["gap"] == "0, proven optimal"
    assert rows[""] == "conv"


def test_the_result_is_json_where_it_is_named_so(run, files, tmp_path):
    path = tmp_path / "bits.json"
    run("allocate", *files, "--bits", "2,4,8", "--average", 5, "-o", path)
    assert json.loads(path.read_text()) == {"ff.a": 4, "ff.b": 8, "conv": 4}


def test_an_average_above_what_is_best_is_spent_only_with_a_tolerance(run, output, tmp_path):
    (tmp_path / "s.yaml").write_text("a: [1, 0]\nb: [1, 0.5]\n")
    (tmp_path / "z.yaml").write_text("a: 1\nb: 1\n")
    common = ["--scores", tmp_path / "s.yaml", "--sizes", tmp_path / "z.yaml", "--bits", "4,8"]
    for extra, expected in (([], {"a": 4, "b": 4}), (["--tolerance", 0.1], {"a": 4, "b": 8})):
        run("allocate", *common, "--average", 6, "-o", output, *extra)
        assert yaml.safe_load(output.read_text()) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--only", "ff"], {"ff.a", "ff.b"}),
        (["--only", "ff.a", "--only", "conv"], {"ff.a", "conv"}),
        (["--exclude", "*.b"], {"ff.a", "conv"}),
    ],
    ids=["only", "only twice", "exclude"],
)
def test_patterns_choose_the_layers(allocate, options, expected):
    assert set(allocate("--average", 4, *options)[1]) == expected


def test_candidates_restrict_the_widths(allocate):
    assert set(allocate("--average", 5)[1].values()) == {4, 8}
    summary, bits = allocate("--average", 4, "--candidates", "2,4")
    assert set(bits.values()) <= {2, 4}
    assert summary["layers"].keys() == {"2", "4"}


def test_protected_layers_are_listed_and_left_out(allocate):
    summary, bits = allocate("--average", 4, "--protect", 0.5)
    assert summary["protected"] == ["conv", "ff.a"]
    assert set(bits) == {"ff.b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--average", 1], "nearest feasible is 2.0"),
        (["--average", "nan"], "average_bits: is nan"),
        (["--average", 4, "--tolerance", -1], "tolerance: is -1"),
        (["--average", 4, "--bits", "2,four"], "bits: '2,four' are not widths"),
        (["--average", 4, "--bits", "2,4"], "scores.yaml: layer 'ff.a': has 3 scores"),
        (["--average", 4, "--candidates", "16"], "candidates: 16 are not all among"),
        (["--average", 4, "--only", "attn"], "'attn' names no layer of"),
        (["--average", 4, "--protect", 2], "share: is 2"),
        (["--average", 4, "--scores", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--average", 4, "-o", "bits.txt"], "bits.txt: is neither .yaml nor .json"),
    ],
    ids=lambda value: " ".join(map(str, value[2:] or value)) if isinstance(value, list) else "",
)
def test_bad_input_is_named_and_writes_nothing(fails, files, output, options, message):
    common = [*files, "--bits", "2,4,8", "-o", output]
    assert message in fails("allocate", *common, *options)
    assert not output.parent.exists()


@pytest.mark.parametrize("name", ["scores.yaml", "sizes.json"])
def test_the_input_is_not_overwritten(fails, files, tmp_path, name):
    before = (tmp_path / name).read_text()
    message = fails("allocate", *files, "--bits", "2,4,8", "--average", 4, "-o", tmp_path / name)
    assert "name another" in message
    assert (tmp_path / name).read_text() == before


def test_a_name_that_cannot_be_written_is_refused(fails, files, tmp_path, output):
    (tmp_path / "sizes.json").write_text('{"\\ud800": 1}')
    message = fails("allocate", *files, "--bits", "2,4,8", "--average", 4, "-o", output)
    assert "cannot be printed" in message


def test_an_earlier_result_survives_a_failure(allocate, fails, files, output):
    allocate("--average", 5)
    before = output.read_text()
    fails("allocate", *files, "--bits", "2,4,8", "--average", 1, "-o", output)
    assert output.read_text() == before
    assert [path.name for path in output.parent.iterdir()] == ["bits.yaml"]


def test_an_interruption_after_the_file_was_written_says_that_it_is_there(
    run, files, output, monkeypatch
):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mezzotint.cli._output.print_tables", interrupted)
    result = run("allocate", *files, "--bits", "2,4,8", "-o", output, "--average", 5)
    assert (result.exit_code, result.stderr) == (130, f"interrupted: {output} is complete\n")
    assert output.exists()


def test_an_interruption_before_says_that_nothing_is(run, files, output, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mezzotint.allocation.files.write_bits", interrupted)
    result = run("allocate", *files, "--bits", "2,4,8", "-o", output, "--average", 5)
    assert (result.exit_code, result.stderr) == (130, "interrupted: nothing was written\n")
