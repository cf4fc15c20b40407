import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.errors import CalibrationError, UsageError
from mezzotint.evaluation import error_by_timestep, sqnr


def outputs(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@given(st.floats(1e-6, 0.5), st.floats(1e-15, 1e100))
def test_a_relative_error_has_its_decibels_at_any_scale(error: float, scale: float):
    y = scale * outputs(3).double()
    assert sqnr(y, (1 + error) * y).numpy() == pytest.approx(-20 * math.log10(error), abs=1e-6)


def test_each_sample_has_its_own_figure():
    y = outputs(3)
    y_hat = y * torch.tensor([1.1, 1.01, 1.0]).view(3, 1, 1, 1)
    figures = sqnr(y, y_hat)
    assert figures[:2].tolist() == pytest.approx([20.0, 40.0], abs=1e-3)
    assert figures[2] == math.inf


def test_the_whole_tensor_has_one_figure():
    y = torch.tensor([[3.0], [4.0]])
    figure = sqnr(y, torch.tensor([[3.0], [4.5]]), per_sample=False)
    assert figure.shape == ()
    assert figure.item() == pytest.approx(20.0)


def test_half_precision_outputs_are_compared_without_overflow():
    y = torch.full((1, 64, 64), 1000.0, dtype=torch.float16)  # squares exceed 65504
    assert sqnr(y, 1.125 * y).item() == pytest.approx(20 * math.log10(8))


def test_noise_where_nothing_should_be_is_a_very_low_figure():
    assert sqnr(torch.zeros(1, 4), torch.ones(1, 4)).item() < -300


def test_timesteps_are_reported_in_order_of_sampling():
    y = outputs(2)
    calls = [(t, y, (1 + e) * y) for t, e in [(999.0, 0.1), (499.0, 0.01)] * 3]
    early, late = error_by_timestep(calls)
    assert (early.timestep, late.timestep) == (999.0, 499.0)
    assert (early.sqnr_db, late.sqnr_db) == pytest.approx((20, 40), abs=1e-3)
    assert (early.samples, late.samples) == (6, 6)


def test_noise_is_averaged_before_it_becomes_decibels():
    y = outputs(2)
    y_hat = y * torch.tensor([1.1, 1.3]).view(2, 1, 1, 1)
    (step,) = error_by_timestep([(0.0, y, y_hat)])
    assert step.sqnr_db == pytest.approx(-10 * math.log10((0.01 + 0.09) / 2), abs=1e-3)


def test_the_interval_holds_the_figure():
    y = outputs(16)
    (step,) = error_by_timestep([(0.0, y, y + 0.1 * outputs(16, 1) * torch.rand(16, 1, 1, 1))])
    assert step.low < step.sqnr_db < step.high


def test_the_interval_depends_on_the_seed_alone():
    y, y_hat = outputs(8), outputs(8, 1)
    assert error_by_timestep([(0.0, y, y_hat)]) == error_by_timestep([(0.0, y, y_hat)])
    assert error_by_timestep([(0.0, y, y_hat)]) != error_by_timestep([(0.0, y, y_hat)], seed=1)


def test_an_exact_output_is_infinitely_good():
    (step,) = error_by_timestep([(0.0, outputs(4), outputs(4))])
    assert (step.sqnr_db, step.low, step.high) == (math.inf, math.inf, math.inf)


def test_one_sample_has_a_figure_but_no_interval():
    (step,) = error_by_timestep([(0.0, outputs(1), 1.1 * outputs(1))])
    assert step.sqnr_db == pytest.approx(20, abs=1e-3)
    assert math.isnan(step.low)


def test_outputs_of_other_calls_are_refused():
    with pytest.raises(UsageError, match="differ in shape"):
        sqnr(outputs(2), outputs(1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_damaged_outputs_are_refused(bad: float):
    damaged = outputs(2)
    damaged[1, 0, 0, 0] = bad
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        error_by_timestep([(0.0, outputs(2), damaged)])
