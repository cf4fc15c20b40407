"""Rows of pictures under one another: the same prompts, several models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mezzotint._files import replacing
from mezzotint.errors import UsageError

Images = npt.NDArray[np.uint8]

_GAP = 4
_SMALLEST = 96


def picture_grid(rows: Mapping[str, Images]) -> Image.Image:
    """One picture: a labelled row of images per entry, columns aligned.

    Args:
        rows: label → uint8 [n, H, W, 3]; all of one shape. Small images are enlarged by a whole
            factor, so that pixels stay visible as what they are.

    Raises:
        UsageError: no rows, or rows of different shapes.
    """
    shapes = {images.shape for images in rows.values()}
    if len(shapes) != 1:
        raise UsageError(f"rows: need images of one shape, got {sorted(shapes)}")
    count, height, width, _ = shapes.pop()
    factor = max(1, -(-_SMALLEST // height))
    cell_w, cell_h = width * factor + _GAP, height * factor + _GAP
    font = ImageFont.load_default(size=14)
    margin = int(max(font.getlength(label) for label in rows)) + 3 * _GAP
    canvas = Image.new("RGB", (margin + count * cell_w, len(rows) * cell_h + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for row, (label, images) in enumerate(rows.items()):
        top = _GAP + row * cell_h
        draw.text((_GAP, top + cell_h // 2), label, fill="black", font=font, anchor="lm")
        for column, pixels in enumerate(images):
            tile = Image.fromarray(pixels).resize(
                (width * factor, height * factor), Image.Resampling.NEAREST
            )
            canvas.paste(tile, (margin + column * cell_w, top))
    return canvas


def save_picture(image: Image.Image, path: str | Path) -> Path:
    """Write a PNG, complete or not at all."""
    path = Path(path)
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
    return path
