"""Samples that are held out, and gains that are more than chance."""

from __future__ import annotations

import math

import pytest
import torch

from mezzotint.models import Call
from mezzotint.recipes.auto.held_out import gain, hold_out


def call(samples: int, *, extra: object = None) -> Call:
    x = torch.arange(samples, dtype=torch.float32)[:, None].expand(samples, 3)
    return Call((x,), {} if extra is None else {"extra": extra}, output=x.clone())


def test_every_fourth_sample_is_held_out_over_all_calls():
    found = hold_out([call(3), call(6)])
    assert found.samples == (3, 7)  # of nine, counted through both calls
    rows = [each.output[:, 0].tolist() for each in found.others]
    assert rows == [[0, 1, 2], [1, 2, 3, 5]]
    assert found.shown == "every 4th of 9 recorded samples"
    assert found.enough


def test_calls_whose_samples_cannot_be_told_apart_are_held_out_whole():
    tied = [call(2, extra=[1, 2]) for _ in range(8)]
    found = hold_out(tied)
    assert found.samples == (6, 7, 14, 15)
    assert [each.output.shape for each in found.others] == [(2, 3)] * 6


@pytest.mark.parametrize("samples", [1, 3, 4, 7])
def test_a_standard_error_takes_two(samples: int):
    assert not hold_out([call(samples)]).enough


def test_a_gain_is_the_mean_fall_and_its_standard_error():
    found = gain([5.0, 1.0, 5.0, 5.0], [4.0, 9.0, 3.0, 2.0], [0, 2, 3])
    assert found.mean == 2
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert found.real


def test_a_fall_within_its_error_is_no_gain():
    assert not gain([2.0, 2.0], [0.0, 3.9], [0, 1]).real
    assert not gain([1.0, 1.0], [1.0, 1.0], [0, 1]).real
    assert not gain([1.0, 1.0], [2.0, 2.0], [0, 1]).real
