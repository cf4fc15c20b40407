"""Picture grids."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mezzotint.errors import UsageError
from mezzotint.report import picture_grid, save_picture


def solid(count: int, value: int, side: int = 64) -> np.ndarray:
    return np.full((count, side, side, 3), value, np.uint8)


def test_a_row_per_model_and_a_column_per_image():
    red, blue = solid(3, 0), solid(3, 0)
    red[..., 0] = blue[..., 2] = 200
    grid = np.asarray(picture_grid({"original": red, "ours": blue}))
    top, bottom = grid[: len(grid) // 2], grid[len(grid) // 2 :]
    assert (top == (200, 0, 0)).all(-1).sum() == 3 * (2 * 64) ** 2
    assert (bottom == (0, 0, 200)).all(-1).sum() == 3 * (2 * 64) ** 2


def test_small_images_are_enlarged_by_a_whole_factor():
    side = picture_grid({"a": solid(1, 0, side=16)}).height
    assert side >= 96


def test_rows_of_different_shapes_are_refused():
    with pytest.raises(UsageError, match="one shape"):
        picture_grid({"a": solid(2, 0), "b": solid(3, 0)})
    with pytest.raises(UsageError, match="one shape"):
        picture_grid({})


def test_a_picture_is_written_as_png(tmp_path):
    path = save_picture(picture_grid({"a": solid(1, 0)}), tmp_path / "new" / "grid.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
