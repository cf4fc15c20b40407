"""Which samples are probed."""

from collections import Counter

import pytest
import torch

from mezzotint.errors import CalibrationError, UsageError
from mezzotint.measuring import Probe, draw_probes
from mezzotint.models import Call


def calls(*batches: int, steps: int = 4) -> list[Call]:
    return [
        Call((), {}, torch.zeros(batch, 1), step=index % steps)
        for index, batch in enumerate(batches)
    ]


EIGHT = calls(*[16] * 8)


def test_the_first_of_more_are_the_same():
    many = draw_probes(EIGHT, 256)
    for count in (1, 32, 64, 100, 128):
        assert draw_probes(EIGHT, count) == many[:count]


def test_the_seed_decides():
    assert draw_probes(EIGHT, 64, seed=3) == draw_probes(EIGHT, 64, seed=3)
    assert draw_probes(EIGHT, 64, seed=3) != draw_probes(EIGHT, 64, seed=4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [32, 64, 128, 256])
class TestShares:
    def test_every_call_has_its_share(self, count: int, seed: int):
        shares = Counter(probe.call for probe in draw_probes(EIGHT, count, seed))
        assert set(shares.values()) == {count // 8}

    def test_so_has_every_timestep_and_guidance_half(self, count: int, seed: int):
        shares = Counter(
            (EIGHT[probe.call].step, probe.row // 8) for probe in draw_probes(EIGHT, count, seed)
        )
        assert set(shares.values()) == {count // 8}
        assert len(shares) == 8

    def test_so_has_every_row(self, count: int, seed: int):
        shares = Counter(probe.row for probe in draw_probes(EIGHT, count, seed))
        assert set(shares.values()) == {count // 16}

    def test_no_two_have_the_same_signs(self, count: int, seed: int):
        assert len({probe.seed for probe in draw_probes(EIGHT, count, seed)}) == count


def test_128_probes_of_128_rows_take_each_once():
    probes = draw_probes(EIGHT, 128)
    assert len({(probe.call, probe.row) for probe in probes}) == 128


def test_every_row_is_as_likely_as_any_other():
    uneven = calls(1, 3, 8, 4)
    shares = Counter((probe.call, probe.row) for probe in draw_probes(uneven, 4096))
    assert len(shares) == 16
    assert max(shares.values()) - min(shares.values()) <= 2


def test_empty_calls_are_passed_over():
    assert {probe.call for probe in draw_probes(calls(0, 2, 0), 32)} == {1}


def test_of_one_row_all_probes_are_of_that_row():
    probes = draw_probes(calls(1), 8)
    assert {(probe.call, probe.row) for probe in probes} == {(0, 0)}
    assert len(set(probes)) == 8


@pytest.mark.parametrize("given", [[], calls(0), calls(0, 0)], ids=["none", "empty", "all empty"])
def test_there_have_to_be_samples(given: list[Call]):
    with pytest.raises(CalibrationError, match="no denoiser calls were recorded"):
        draw_probes(given, 32)


@pytest.mark.parametrize("count", [0, -3])
def test_there_has_to_be_a_probe(count: int):
    with pytest.raises(UsageError, match="too few"):
        draw_probes(EIGHT, count)


def test_probes_are_values():
    assert Probe(1, 2, 3) == Probe(1, 2, 3)
    assert len({Probe(1, 2, 3), Probe(1, None, 3)}) == 2
