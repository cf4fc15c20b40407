"""Options of recipes on the command line."""

import pytest

from mezzotint.cli._recipe_command import joined_values

KNOWN = ["--output", "-o", "--force"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--target -log(metric)", "--target=-log(metric)"),
        ("--caution -1 -o out", "--caution=-1 -o out"),
        ("--plus -o out", "--plus -o out"),
        ("--plus --force", "--plus --force"),
        ("--level op --target=-metric", "--level op --target=-metric"),
        ("--output -x --level op", "--output -x --level op"),
    ],
)
def test_values_that_begin_with_a_dash_stay_with_their_option(arguments, expected):
    assert joined_values(arguments.split(), KNOWN) == expected.split()


def test_a_target_is_not_read_letter_by_letter(fails, model, tmp_path):
    output = tmp_path / "out"
    options = ("--recipe", "qua2sedimo", "--target", "-metric - 3*foo")
    told = fails("quantize", model, "-o", output, *options)
    assert "target '-metric - 3*foo': unknown name 'foo'" in told
