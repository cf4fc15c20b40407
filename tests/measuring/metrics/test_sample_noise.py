"""Noise of every sample, in the order of the calls."""

import pytest
import torch

from mezzotint.measuring import Noise, SampleNoise, metric_named, relative_noise, sample_noises


def pairs():
    generator = torch.Generator().manual_seed(0)
    for samples in (3, 2):
        y = torch.randn(samples, 4, generator=generator)
        yield y, y + 0.1 * torch.randn(samples, 4, generator=generator)


def test_every_sample_has_its_noise_in_order():
    found = sample_noises(SampleNoise().figures(pairs()))
    expected = torch.cat([relative_noise(*pair) for pair in pairs()])
    assert found == pytest.approx(expected.tolist())


def test_the_mean_is_that_of_the_noise():
    figures = SampleNoise().figures(pairs())
    assert SampleNoise().loss(figures) == pytest.approx(Noise().figures(pairs())["noise"])
    assert SampleNoise().fault(figures) is None
    assert SampleNoise().fault({"sample 0": 0.1}) == "noise is missing"


def test_it_is_registered():
    assert metric_named("sample-noise") == SampleNoise()
