"""`--call KEY=VALUE`: further arguments of the pipeline's call, written on the command line."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Call: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--call",
        metavar="KEY=VALUE",
        help="Further argument of the pipeline's call: a number, true or false, JSON, words, or "
        "the path of a picture; a folder of pictures has one for each prompt. May be repeated.",
        show_default=False,
    ),
]

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Ends of the names of pictures."""

_MODES = {"1": "L", "L": "L", "I": "L", "I;16": "L", "F": "L", "LA": "L"}
"""Mode of a file's pixels → the one that it is given in; all others are given in RGB."""


def call_kwargs(arguments: Sequence[str] | None, images: int, *, repeat: bool) -> dict[str, Any]:
    """Name → value of all `--call KEY=VALUE`.

    Args:
        arguments: as they were typed.
        images: number of prompts, or of images where there are none.
        repeat: give a folder's pictures again and again, or leave the last ones out, where they
            are not as many as there are images; nobody has chosen their number.

    Raises:
        UsageError: an argument has no KEY=, is given twice, or names a picture that cannot be read;
            or a folder has another number of pictures.
    """
    found: dict[str, Any] = {}
    for argument in arguments or ():
        name, equals, text = argument.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--call {argument}: write KEY=VALUE, such as strength=0.5")
        if name in found:
            raise UsageError(f"--call {name}: is given twice")
        path = Path(text).expanduser()
        if text and path.is_dir():
            found[name] = _pictures(name, path, images, repeat=repeat)
        elif path.suffix.lower() in _SUFFIXES and "\n" not in text:
            found[name] = _picture(name, path)
        else:
            found[name] = _value(name, text)
    return found


def _value(name: str, text: str) -> Any:
    """JSON where it is some, or else the words themselves."""
    try:
        value = json.loads(text)
    except ValueError:
        if text[:1] in ("[", "{", '"'):
            raise UsageError(f"--call {name}: {text!r} is no JSON; check its quotes") from None
        return text
    # json.loads takes NaN and Infinity, which are words as well.
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _pictures(name: str, folder: Path, images: int, *, repeat: bool) -> list[Image]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UsageError(f"--call {name}: {folder} holds no pictures; name a folder of some")
    if repeat:
        paths = list(islice(cycle(paths), images))
    if len(paths) != images:
        raise UsageError(
            f"--call {name}: {folder} holds {len(paths)} pictures for {images} prompts; give as "
            "many of each"
        )
    pictures = [_picture(name, path) for path in paths]
    alike = len({picture.mode for picture in pictures}) == 1
    # Pipelines take a batch of one kind.
    return pictures if alike else [picture.convert("RGB") for picture in pictures]


def _picture(name: str, path: Path) -> Image:
    """The picture of a file, in RGB, or grey where the file is."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert(_MODES.get(image.mode, "RGB"))
    except FileNotFoundError as cause:
        raise UsageError(f"--call {name}: {path}: no such picture") from cause
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as cause:
        raise UsageError(f"--call {name}: {path}: is no readable picture ({cause})") from cause
