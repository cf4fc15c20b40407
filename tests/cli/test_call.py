"""`--call KEY=VALUE`: what the words become, and where they go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMScheduler, DiTPipeline, StableDiffusionImg2ImgPipeline
from PIL import Image

import mezzotint as mz
from mezzotint.cli._call import call_kwargs
from mezzotint.errors import UsageError
from tests.models import tiny


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures in a folder, one of them grey, beside another file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "b.png")
    Image.fromarray(pixels[1]).convert("L").save(folder / "a.jpg")
    (folder / "notes.txt").write_text("none")
    return folder


@pytest.fixture(scope="session")
def image_to_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Starts from a picture; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-img2img"
    parts = tiny.tiny_stable_diffusion().components
    parts["unet"] = tiny.smallest_unet(attention=False)
    StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=2, guidance_scale=1.0, strength=0.5)
    (folder / "prompts.txt").write_text("owl\napple\nfox\n")
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes class labels in the place of prompts; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny-classes"
    pipe = DiTPipeline(
        transformer=tiny.tiny_dit(), vae=tiny.tiny_vae(), scheduler=DDIMScheduler(), id2label=None
    )
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    return folder


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("4", 4),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('"4"', "4"),
        ("blurred, dark", "blurred, dark"),
        ("a=b", "a=b"),
        ("", ""),
        ("NaN", "NaN"),
    ],
)
def test_words_become_values(text: str, value: object):
    assert call_kwargs([f"key={text}"], 1, repeat=False) == {"key": value}


def test_a_path_becomes_a_picture(photos: Path):
    found = call_kwargs([f"image={photos}/b.png", f"mask_image={photos}/a.jpg"], 1, repeat=False)
    assert (found["image"].mode, found["mask_image"].mode) == ("RGB", "L")


def test_a_folder_becomes_a_picture_for_each_prompt_in_the_order_of_names(photos: Path):
    grey, coloured = call_kwargs([f"image={photos}"], 2, repeat=False)["image"]
    assert grey == grey.convert("L").convert("RGB")
    with Image.open(photos / "b.png") as picture:
        assert coloured.tobytes() == picture.tobytes()


def test_a_folder_is_repeated_where_nobody_chose_the_prompts(photos: Path):
    found = call_kwargs([f"image={photos}"], 5, repeat=True)["image"]
    assert found == [*found[:2], *found[:2], found[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strength"], "--call strength: write KEY=VALUE"),
        (["=3"], "--call =3: write KEY=VALUE"),
        (["a=1", "a=2"], "--call a: is given twice"),
        (["image={}/none.png"], "--call image: .*none.png: no such picture"),
        (["image={}/c.png"], "--call image: .*c.png: is no readable picture"),
        (["image={}"], "--call image: .* holds 3 pictures for 4 prompts"),
        (["image={}/empty"], "--call image: .*empty holds no pictures"),
        (["labels=[1,"], r"--call labels: '\[1,' is no JSON"),
    ],
    ids=["no-value", "no-key", "twice", "missing", "damaged", "count", "empty", "json"],
)
def test_what_cannot_be_read_is_told(photos: Path, arguments: list[str], message: str):
    (photos / "c.png").write_bytes(b"\x89PNG damaged")
    (photos / "empty").mkdir()
    with pytest.raises(UsageError, match=f"^{message}"):
        call_kwargs([each.format(photos) for each in arguments], 4, repeat=False)


def test_generate_gives_each_prompt_its_picture(run, image_to_image, photos, tmp_path):
    run(
        "generate",
        image_to_image,
        "owl",
        "fox",
        "-o",
        tmp_path / "out",
        "--call",
        f"image={photos}",
    )
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_generate_makes_pictures_without_prompts(run, classes, tmp_path):
    run("generate", classes, "-n", 3, "-o", tmp_path / "a")
    run("generate", classes, "-n", 3, "-o", tmp_path / "b", "--call", "class_labels=[0,3,6]")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["000-image.png", "001-image.png", "002-image.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unknown_argument_fails_with_the_nearest(fails, image_to_image, tmp_path):
    message = fails("generate", image_to_image, "owl", "-o", tmp_path, "--call", "strenght=1")
    assert "did you mean strength?" in message


def test_a_plan_asks_for_its_pictures_again(run, fails, image_to_image, photos, tmp_path):
    picture = ("--call", f"image={photos}")
    common = ("quantize", image_to_image, "-o")
    run(
        *common,
        tmp_path / "first",
        *picture,
        "--recipe",
        "mpqdm",
        "--weight-bits",
        4,
        "--train-minutes",
        0,
    )
    plan = mz.load(tmp_path / "first").unet.config.quantization_config
    assert plan is not None
    message = fails(*common, tmp_path / "none", "--plan", tmp_path / "first")
    assert "image: only its digest is known, from a plan" in message
    run(*common, tmp_path / "again", "--plan", tmp_path / "first", *picture)
    first, again = (
        (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in ("first", "again")
    )
    assert first == again


def test_evaluate_compares_pipelines_of_classes(run, classes, tmp_path):
    run("quantize", classes, "-o", tmp_path / "w8", "--plan", _uniform(classes, tmp_path))
    result = run(
        "evaluate", tmp_path / "w8", "--reference", classes, "-n", 2, "--call", "class_labels=3"
    )
    assert "left out: the images have no prompts" in result.stdout


def _uniform(model: Path, folder: Path) -> Path:
    plan = mz.uniform_plan(mz.load(model).transformer, weight_bits=8, act_bits=16)
    plan.save(folder / "plan.json")
    return folder / "plan.json"
