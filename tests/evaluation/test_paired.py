import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import UsageError
from mezzotint.evaluation import psnr, ssim


def constant(level: int, size: int = 16) -> np.ndarray:
    return np.full((1, size, size, 3), level, np.uint8)


def noisy(images: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@given(st.integers(0, 255), st.integers(0, 255))
def test_psnr_of_constant_images_has_a_closed_form(a: int, b: int):
    difference = abs(a - b) or (1 / constant(0).size) ** 0.5
    assert psnr(constant(a), constant(b)) == pytest.approx(20 * np.log10(255 / difference))


def test_psnr_does_not_wrap_modulo_256():
    # As uint8, 0 - 255 is 1: the two would pass for nearly equal.
    assert psnr(constant(0), constant(255)) == pytest.approx(0.0)


def test_psnr_of_identical_images_is_that_of_the_smallest_difference(images: np.ndarray):
    nearly = images.copy()
    nearly[:, 0, 0, 0] ^= 1
    assert psnr(images, images) == pytest.approx(psnr(images, nearly))


def test_each_pair_has_its_own_figure(images: np.ndarray):
    changed = images.copy()
    changed[2] = 255 - changed[2]
    for metric in (psnr, ssim):
        values = metric(images, changed)
        assert values.shape == (len(images),)
        assert values.argmin() == 2
        assert len(set(np.delete(values, 2))) == 1


def test_ssim_of_identical_images_is_one(images: np.ndarray):
    assert ssim(images, images) == pytest.approx(1.0)


@given(st.integers(0, 255), st.integers(0, 255))
def test_ssim_of_constant_images_is_the_luminance_term(a: int, b: int):
    c1 = (0.01 * 255) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(constant(a), constant(b)) == pytest.approx(expected)


def test_ssim_of_one_window_follows_the_formula():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 1, 11, 11, 3), dtype=np.uint8)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = (np.outer(taps, taps) / taps.sum() ** 2)[..., None]

    def mean(values: np.ndarray) -> np.ndarray:
        return (window * values).sum((0, 1))

    a, b = x[0].astype(float), y[0].astype(float)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    variance_a, variance_b = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
    covariance = mean(a * b) - mean(a) * mean(b)
    expected = (2 * mean(a) * mean(b) + c1) * (2 * covariance + c2)
    expected /= (mean(a) ** 2 + mean(b) ** 2 + c1) * (variance_a + variance_b + c2)
    assert ssim(x, y) == pytest.approx(expected.mean())


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_more_noise_is_a_lower_figure(metric, images: np.ndarray):
    figures = [metric(images, noisy(images, sigma)).mean() for sigma in (2, 8, 32, 128)]
    assert figures == sorted(figures, reverse=True)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_the_order_of_the_two_does_not_matter(metric, images: np.ndarray):
    other = noisy(images, 20)
    assert metric(images, other) == pytest.approx(metric(other, images))


@pytest.mark.parametrize("size", [1, 2, 7, 10], ids="{0}x{0}".format)
def test_ssim_takes_images_smaller_than_the_window(size: int, images: np.ndarray):
    small = np.ascontiguousarray(images[:, 4 : 4 + size, 4 : 4 + size])
    assert ssim(small, small) == pytest.approx(1.0)
    assert (ssim(small, 255 - small) < 0.9).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((16, 16, 3), np.uint8),
        np.zeros((1, 16, 16, 1), np.uint8),
        np.zeros((0, 16, 16, 3), np.uint8),
        np.zeros((2, 16, 16, 3), np.uint8),
    ],
    ids=["float", "no batch", "grey", "none", "other count"],
)
def test_what_is_no_pair_of_image_batches_is_refused(metric, wrong: np.ndarray):
    with pytest.raises(UsageError, match="images"):
        metric(constant(0), wrong)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_ssim_refuses_an_impossible_window(sigma: float):
    with pytest.raises(UsageError, match="sigma"):
        ssim(constant(0), constant(0), sigma=sigma)
