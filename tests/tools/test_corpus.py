"""Reading of the npm packages, without fetching or rendering any."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tools.emoji import corpus
from tools.emoji.corpus import CorpusError, Drawings

WHITE, RED = (255, 255, 255), (255, 0, 0)
ICONS = {
    "width": 36,
    "height": 36,
    "icons": {
        "owl": {"body": "<g/>"},
        "water-melon": {"body": "<path/>", "height": 25.22},
        "melon": {"body": "<g/>", "hidden": True},
    },
}


def webp(color: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> bytes:
    content = io.BytesIO()
    Image.new("RGBA", size, color).save(content, "WEBP", lossless=True)
    return content.getvalue()


def package(path, files: dict[str, bytes]):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@given(style=st.text(max_size=8), name=st.text(max_size=20))
def test_a_pair_is_held_out_when_the_first_byte_of_its_hash_is_below_16(style, name):
    first = hashlib.sha256(f"{style}/{name}".encode()).hexdigest()[:2]
    assert corpus.split(style, name) == ("test" if first < "10" else "train")


def test_a_sixteenth_of_all_pairs_is_held_out():
    splits = [corpus.split("noto", str(number)) for number in range(4000)]
    assert splits.count("test") == pytest.approx(250, abs=50)


def test_a_caption_is_one_line_of_json():
    line = corpus.caption("noto", "owl")
    assert line.endswith("}\n")
    assert json.loads(line) == {"style": "noto", "name": "owl", "split": "train"}


def test_icons_are_named_in_words_and_hidden_ones_left_out():
    assert list(corpus.svg_documents(ICONS)) == ["owl", "water melon"]


def test_an_icon_keeps_its_own_box():
    documents = corpus.svg_documents(ICONS)
    assert b'viewBox="0 0 36 36"' in documents["owl"]
    assert b'viewBox="0 0 36 25.22"><path/></svg>' in documents["water melon"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("boxer dark", "boxer dark skin tone"),
        ("boxer medium light", "boxer medium light skin tone"),
        ("boxer", "boxer"),
        ("traffic light", "traffic light"),
    ],
)
def test_skin_tones_are_spelled_out_where_another_set_knows_them(name, expected):
    known = {"boxer", "boxer dark skin tone", "boxer medium light skin tone", "traffic light"}
    assert corpus.spell_out_tone(name, known) == expected


@pytest.mark.parametrize("spelling", ["0023-20e3", "23-20e3", "0023-fe0f-20e3", "0023-FE0F-20E3"])
def test_spellings_of_one_sequence_are_the_same(spelling):
    assert corpus.normalized(spelling) == "23-20e3"


def test_files_are_named_by_code_points_once_each():
    files = {"assets/0023-fe0f-20e3.webp": b"a", "assets/1f989.webp": b"b"}
    repeated = {"assets/23-20e3.webp": b"c", "assets/1f3f4-e0067_e0062.webp": b"d"}
    icons = {"0023-20e3": "keycap-pound", "1f989": "owl", "1f40e": "horse"}
    named = corpus.name_by_code_points(files | repeated, icons)
    assert named == {"keycap pound": b"a", "owl": b"b"}


def test_packages_are_read_in_order_of_file_names(tmp_path):
    archive = package(tmp_path / "p.tgz", {"b.webp": b"2", "README.md": b"", "a.webp": b"1"})
    files = corpus.read(archive, lambda name: name.endswith(".webp"))
    assert list(files.items()) == [("a.webp", b"1"), ("b.webp", b"2")]


def test_3d_pictures_take_their_names_from_twemoji(tmp_path):
    chars = json.dumps({"1f989": "owl"}).encode()
    archives = {
        "3d": package(tmp_path / "3d.tgz", {"assets/1f989.webp": b"picture"}),
        "twemoji": package(tmp_path / "twemoji.tgz", {"chars.json": chars}),
    }
    assert corpus.pictures("3d", archives) == {"owl": b"picture"}


def test_fluent_pictures_take_their_skin_tones_from_noto(tmp_path):
    def icons(*names: str) -> bytes:
        bodies = {name: {"body": ""} for name in names}
        return json.dumps({"width": 1, "height": 1, "icons": bodies}).encode()

    fluent, noto = icons("boxer-dark", "police-car-light"), icons("boxer-dark-skin-tone")
    archives = {
        "flat": package(tmp_path / "flat.tgz", {"icons.json": fluent}),
        "noto": package(tmp_path / "noto.tgz", {"icons.json": noto}),
    }
    assert list(corpus.pictures("flat", archives)) == ["boxer dark skin tone", "police car light"]


@pytest.mark.parametrize(
    ("files", "complaint"), [({}, "contains no icons.json"), ({"icons.json": b"{"}, "not JSON")]
)
def test_a_package_of_other_content_is_named(tmp_path, files, complaint):
    archive = package(tmp_path / "noto.tgz", files)
    with pytest.raises(CorpusError, match=rf"noto\.tgz: .*{complaint}"):
        corpus.read_json(archive, "icons.json")


def test_a_damaged_download_is_named(tmp_path):
    damaged = tmp_path / "noto.tgz"
    damaged.write_bytes(b"<html>")
    with pytest.raises(CorpusError, match=r"noto\.tgz: not a readable package .* delete it"):
        corpus.read(damaged, bool)


def test_transparency_becomes_white():
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.putpixel((3, 5), (255, 0, 0, 255))
    image.putpixel((4, 5), (255, 0, 0, 51))
    pixels = corpus.on_white(image)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels[5, 2:6].tolist() == [[*WHITE], [*RED], [255, 204, 204], [*WHITE]]


@pytest.mark.parametrize("size", [(128, 128), (128, 90), (65, 128)], ids=str)
def test_a_picture_is_shrunk_to_fit_and_centred(size):
    image = corpus.from_bitmap(webp((255, 0, 0, 255), size))
    assert max(image.size) == 64
    red = (corpus.on_white(image) == RED).all(-1)
    for axis, length in enumerate(reversed(image.size)):
        covered = np.flatnonzero(red.any(1 - axis))
        assert (covered[0], len(covered)) == ((64 - length) // 2, length)


def test_pictures_are_drawn_row_by_row():
    drawn = corpus.draw("3d", {"rose": webp((*RED, 255), (64, 64)), "ghost": webp((0, 0, 0, 0))})
    assert drawn.names == ["rose", "ghost"]
    assert (drawn.images[0] == RED).all()
    assert (drawn.images[1] == WHITE).all()


def test_a_picture_that_cannot_be_drawn_is_named():
    with pytest.raises(CorpusError, match="3d, owl: cannot be drawn"):
        corpus.draw("3d", {"owl": b"no picture"})


def test_a_finished_style_is_not_drawn_again(tmp_path):
    images = np.arange(2 * 64 * 64 * 3, dtype=np.uint8).reshape(2, 64, 64, 3)
    made = []

    def make() -> Drawings:
        made.append(1)
        return Drawings(["owl", "water melon"], images)

    for _ in range(2):
        drawn = corpus.resume(tmp_path / "styles" / "noto.npz", make)
        assert drawn.names == ["owl", "water melon"]
        np.testing.assert_array_equal(drawn.images, images)
    assert len(made) == 1


def test_an_interrupted_style_leaves_nothing(tmp_path):
    def interrupted() -> Drawings:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.resume(tmp_path / "noto.npz", interrupted)
    assert not list(tmp_path.iterdir())


def test_a_damaged_style_is_named(tmp_path):
    part = tmp_path / "noto.npz"
    part.write_bytes(b"PK damaged")
    with pytest.raises(CorpusError, match=r"noto\.npz: not a finished style .* delete it"):
        corpus.resume(part, lambda: Drawings([], np.empty(0)))


def test_a_downloaded_package_is_not_fetched_again(tmp_path):
    path = tmp_path / "iconify-json-noto-1.2.9.tgz"
    path.touch()
    assert corpus.fetch("@iconify-json/noto@1.2.9", tmp_path) == path


def test_a_missing_npm_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="npm is not on the PATH"):
        corpus.fetch("@iconify-json/noto@1.2.9", tmp_path)


def test_finished_styles_become_one_corpus(tmp_path):
    (tmp_path / "packages").mkdir()
    for row, name in enumerate(corpus.PACKAGES.values()):
        stem = name.removeprefix("@").replace("/", "-").replace("@", "-")
        (tmp_path / "packages" / f"{stem}.tgz").touch()
        drawn = Drawings(["owl"], np.full((1, 64, 64, 3), row, np.uint8))
        corpus.resume(tmp_path / "styles" / f"{stem}.npz", lambda drawn=drawn: drawn)
    corpus.build(tmp_path)
    with np.load(tmp_path / "emoji64.npz") as arrays:
        assert arrays["images"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    lines = (tmp_path / "captions.jsonl").read_text("utf-8").splitlines()
    styles = [json.loads(line)["style"] for line in lines]
    assert styles == ["noto", "twemoji", "flat", "gradient", "3d"]
