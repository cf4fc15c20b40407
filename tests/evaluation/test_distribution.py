import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from mezzotint.errors import UsageError
from mezzotint.evaluation import FDLite0, frechet_distance


def gaussian(n: int, covariance: np.ndarray, seed: int = 0) -> np.ndarray:
    """Features whose mean is 0 and whose covariance is exactly the given one."""
    white = np.random.default_rng(seed).normal(size=(n, len(covariance)))
    white -= white.mean(0)
    white @= np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    return white @ np.linalg.cholesky(covariance).T


sizes = st.tuples(st.integers(2, 40), st.integers(2, 40), st.integers(1, 20))


@given(sizes, st.integers(0, 99))
def test_the_distance_is_symmetric_and_not_negative(size: tuple[int, int, int], seed: int):
    n, m, d = size
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, d)), 3 * rng.normal(size=(m, d)) + 1
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) >= 0


@given(sizes, st.integers(0, 99))
def test_a_set_is_at_no_distance_from_itself(size: tuple[int, int, int], seed: int):
    features = np.random.default_rng(seed).normal(size=(size[0], size[2]))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_a_shift_costs_its_square():
    features = np.random.default_rng(0).normal(size=(50, 6))
    shift = np.array([3.0, 0, -4, 0, 0, 0])
    assert frechet_distance(features, features + shift) == pytest.approx(25)


def test_a_scale_costs_the_difference_of_standard_deviations():
    a = gaussian(100, np.diag([4.0, 9.0]))
    b = gaussian(80, np.diag([25.0, 1.0]), seed=1)
    assert frechet_distance(a, b) == pytest.approx((2 - 5) ** 2 + (3 - 1) ** 2)


def test_covariances_that_do_not_commute_follow_the_matrix_formula():
    c_a, c_b = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    expected = np.trace(c_a + c_b - 2 * linalg.sqrtm(c_a @ c_b).real)
    found = frechet_distance(gaussian(60, c_a), gaussian(70, c_b, seed=1))
    assert found == pytest.approx(expected)


def test_fewer_samples_than_features_are_no_problem():
    a = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, 2 * a) > 0


def test_the_order_of_samples_does_not_matter():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 5))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(rng.permutation(a), b))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 3)), "holds 1"),
        (np.zeros((0, 3)), "holds 0"),
        (np.zeros(3), "shape"),
        (np.zeros((4, 2)), "differ in width"),
        (np.full((4, 3), np.nan), "NaN"),
    ],
    ids=["one", "none", "vector", "width", "nan"],
)
def test_what_has_no_covariance_is_refused(wrong: np.ndarray, message: str):
    with pytest.raises(UsageError, match=message):
        frechet_distance(np.ones((4, 3)), wrong)


@pytest.mark.parametrize(("references", "images"), [(1999, 5000), (5000, 1999)])
def test_a_figure_from_few_images_says_that_it_is_biased(references: int, images: int):
    note = FDLite0(1.0, references, images).note
    assert "biased" in note
    assert "1999 images" in note


def test_a_figure_from_many_images_carries_no_warning():
    assert FDLite0(1.0, 2000, 2000).note is None
