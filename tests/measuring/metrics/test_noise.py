import math

import pytest
import torch

from mezzotint.measuring import Noise, decibels, relative_noise


class TestRelativeNoise:
    def test_it_is_error_power_over_signal_power_per_sample(self):
        reference = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
        output = torch.tensor([[3.0, 3.0], [1.0, 0.0], [0.0, 0.0]])
        assert relative_noise(reference, output).tolist() == pytest.approx([1 / 25, 0.0, 1.0])

    def test_images_are_samples_too(self):
        assert relative_noise(torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)).tolist() == [1, 1]

    def test_half_precision_is_compared_in_float32(self):
        reference = torch.full((1, 4096), 100.0, dtype=torch.float16)
        assert relative_noise(reference, reference * 2).tolist() == [1.0]

    def test_a_silent_reference_gives_a_finite_or_infinite_number_not_nan(self):
        assert relative_noise(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0.0]
        assert float(relative_noise(torch.zeros(1, 4), torch.ones(1, 4))) > 1e30

    def test_another_precision_is_used_where_asked_for(self):
        reference = torch.full((1, 4), 3.0, dtype=torch.float16)
        assert relative_noise(reference, reference, torch.float64).dtype == torch.float64

    @pytest.mark.parametrize(("noise", "expected"), [(1.0, 0.0), (0.01, 20.0), (0.0, math.inf)])
    def test_decibels(self, noise: float, expected: float):
        assert decibels(noise) == pytest.approx(expected)


class TestNoise:
    def test_it_is_the_mean_over_calls_and_samples(self):
        y = torch.ones(2, 4)
        pairs = [(y, y * 1.1), (y[:1], y[:1] * 1.3)]
        assert Noise().figures(pairs)["noise"] == pytest.approx((2 * 0.01 + 0.09) / 3)

    def test_it_adds_up_as_it_is(self):
        assert Noise().loss({"noise": 0.25}) == 0.25
