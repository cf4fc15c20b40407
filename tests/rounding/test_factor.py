"""Triangular factors of Gram matrices."""

from __future__ import annotations

import gc

import pytest
import torch

from mezzotint.rounding import InputMoments
from mezzotint.rounding.factor import DAMPING, factor_of, factors_of, shrinkage

CPU = torch.device("cpu")
N = 40


def inputs(count: int, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    mixing = torch.randn(N, N, generator=torch.Generator().manual_seed(99))
    return torch.randn(count, N, generator=made) @ mixing


def gram(count: int = 10**4) -> torch.Tensor:
    x = inputs(count)
    return x.T @ x / count


def test_the_factor_makes_up_the_damped_matrix():
    matrix = gram()
    factor = factor_of(matrix, 10**9)
    assert torch.equal(factor.upper, factor.upper.triu())
    assert torch.equal(factor.upper.diagonal(), torch.ones(N))
    damped = matrix.double() + DAMPING * matrix.diagonal().double().mean() * torch.eye(N)
    damped = damped[factor.order][:, factor.order]
    upper = factor.upper.double()
    inverse = upper.inverse()
    pivots = inverse @ damped @ inverse.T
    off = pivots - torch.diag(pivots.diagonal())
    assert off.abs().max() < 1e-3 * pivots.diagonal().mean()


def test_columns_are_taken_by_falling_energy_and_equal_ones_in_their_order():
    matrix = torch.diag(torch.tensor([1.0, 5.0, 1.0, 0.0, 9.0]))
    assert factor_of(matrix, 10).order.tolist() == [4, 1, 0, 2, 3]


def test_a_matrix_that_float32_cannot_factor_is_factored_all_the_same():
    direction = torch.linspace(1, 1e4, N)
    matrix = direction.outer(direction) - 3e5 * torch.eye(N)
    factor = factor_of(matrix, 10**9)
    assert bool(factor.upper.isfinite().all())


@pytest.mark.parametrize("energy", [1e-36, 1e34])
def test_the_energy_of_inputs_makes_no_difference(energy: float):
    matrix = gram()
    scaled, plain = factor_of(matrix * energy, 500), factor_of(matrix, 500)
    torch.testing.assert_close(scaled.upper, plain.upper, rtol=1e-3, atol=1e-3)


def test_more_samples_are_trusted_more():
    few, many = (shrinkage(gram(count), count) for count in (20, 2000))
    assert 0 < many < few / 10 < 1


def test_shrinkage_brings_the_matrix_of_few_samples_nearer_to_that_of_many():
    true, count = gram(10**5), 30
    found = gram(count)
    ratio = shrinkage(found, count)
    shrunk = (1 - ratio) * found + ratio * torch.diag(found.diagonal())
    assert (shrunk - true).norm() < 0.9 * (found - true).norm()


def test_inputs_that_have_nothing_to_do_with_each_other_are_shrunk_to_the_diagonal():
    assert shrinkage(torch.diag(torch.arange(1.0, 9.0)), 10**6) == 1.0


def test_a_factor_serves_all_formats_of_its_layer():
    moments = InputMoments((gram()[None],), torch.zeros(1, N), 100)
    assert factors_of(moments, CPU) is factors_of(moments, CPU)


def test_factors_go_with_their_moments(monkeypatch: pytest.MonkeyPatch):
    from mezzotint.rounding import factor

    held: list[InputMoments] = []
    monkeypatch.setattr(factor, "_HELD_BYTES", 3 * 4 * N * N)
    for _ in range(5):
        held.append(InputMoments((gram()[None],), torch.zeros(1, N), 100))
        factors_of(held[-1], CPU)
    kept = [each in factor._HELD for each in held]
    assert kept == [False, False, False, True, True]
    held.clear()
    gc.collect()
    assert not [each for each in factor._HELD if each.columns == N and each.count == 100]
