import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mezzotint.cli.generate import slug


def test_a_picture_of_each_prompt_is_named_after_it(run, model, tmp_path):
    output = tmp_path / "pictures"
    result = run("generate", model, "Owl, noto style", "red apple", "-o", output, "--seed", 3)
    names = ["000-owl-noto-style.png", "001-red-apple.png"]
    assert sorted(path.name for path in output.iterdir()) == names
    assert result.stdout.split() == [str(output / name) for name in names]
    with Image.open(output / names[0]) as image:
        assert image.size == (16, 16)


def test_a_quantized_folder_generates_too(run, quantized, tmp_path):
    run("generate", quantized, "owl", "-o", tmp_path)
    assert (tmp_path / "000-owl.png").is_file()


def test_the_same_seed_gives_the_same_picture(run, model, tmp_path):
    for folder in ("a", "b"):
        run("generate", model, "owl", "-o", tmp_path / folder, "--seed", 5, "--steps", 2)
    first, second = (tmp_path / folder / "000-owl.png" for folder in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("owl, noto style", "owl-noto-style"),
        ("../../etc/passwd", "etc-passwd"),
        ("Füchse & Möwen", "füchse-möwen"),
        ("!?", "prompt"),
        ("", "prompt"),
    ],
)
def test_prompts_become_file_names(prompt, expected):
    assert slug(prompt) == expected


@given(st.text())
def test_no_prompt_leaves_the_folder_or_exceeds_a_file_name(prompt):
    assert "/" not in slug(prompt)
    assert len(slug(prompt).encode()) < 255 - len("000-.png") - len(".12345678")
