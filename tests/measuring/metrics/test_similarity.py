import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import UsageError
from mezzotint.measuring import Similarity, global_ssim


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x: Tensor, y: Tensor) -> float:
    """One pair; sample statistics of every window that lies inside."""
    side = min(x.shape[1:])
    window = next(n for n in range(side - 1, 0, -1) if n % 2)
    values = []
    for a, b in zip(x.double().numpy(), y.double().numpy(), strict=True):
        for top in range(a.shape[0] - window + 1):
            for left in range(a.shape[1] - window + 1):
                place = slice(top, top + window), slice(left, left + window)
                p, q = a[place].ravel(), b[place].ravel()
                (vp, cov), (_, vq) = np.cov(p, q)
                mp, mq = p.mean(), q.mean()
                luminance = (2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2)
                values.append(luminance * (2 * cov + 0.03**2) / (vp + vq + 0.03**2))
    return float(np.mean(values))


@given(st.integers(4, 12), st.integers(4, 12), st.integers(0, 99), st.floats(0, 1))
def test_it_is_structural_similarity_with_the_largest_odd_window_below_the_side(
    height: int, width: int, seed: int, share: float
):
    x = images(2, 3, height, width, seed=seed)
    y = share * x + (1 - share) * images(2, 3, height, width, seed=seed + 1)
    expected = [by_definition(a, b) for a, b in zip(x, y, strict=True)]
    assert global_ssim(x, y).tolist() == pytest.approx(expected, abs=1e-9)


@given(st.integers(4, 20), st.integers(0, 99))
def test_equal_images_give_exactly_one(side: int, seed: int):
    x = images(3, 3, side, side, seed=seed)
    assert global_ssim(x, x.clone()).tolist() == [1.0, 1.0, 1.0]


def test_images_are_compared_as_floats():
    x = torch.zeros(1, 3, 8, 8)
    assert float(global_ssim(x, x + 1e-4)) < 1


def test_a_constant_shift_costs_luminance_only():
    x = 0.5 * images(1, 3, 8, 8)
    assert 0 < float(global_ssim(x, x + 0.5)) < float(global_ssim(x, x + 0.1)) < 1


def test_an_inverted_image_is_unlike():
    x = images(1, 3, 8, 8)
    assert float(global_ssim(x, 1 - x)) < 0


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(1, 4, 8, 8),
        torch.zeros(1, 8, 8, 3),
        torch.zeros(1, 3, 8, 3),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
    ],
    ids=lambda tensor: f"{tensor.dtype} {list(tensor.shape)}",
)
def test_other_shapes_and_types_are_refused(wrong: Tensor):
    with pytest.raises(UsageError, match=r"reference: is .*give RGB images as floating"):
        global_ssim(wrong, images(1, 3, 8, 8))
    with pytest.raises(UsageError, match="images: is "):
        global_ssim(images(1, 3, 8, 8), wrong)


def test_pairs_of_different_shapes_are_refused():
    with pytest.raises(UsageError, match="differ in shape"):
        global_ssim(images(2, 3, 8, 8), images(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("ssim", "loss"),
    [(1.0, 0.0), (0.25, 0.75), (math.inf, math.inf)],
    ids=["equal", "apart", "ruined"],
)
def test_the_loss_falls_with_similarity(ssim: float, loss: float):
    assert Similarity().loss({"ssim": ssim}) == loss
