import math

import pytest
import torch
from hypothesis import given
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MPQ_DM, MSE, RangeSearch, UniformFormat
from tests.formats.strategies import formats, normal, parsed, weights


def error(fmt: UniformFormat, weight: Tensor, search: RangeSearch, power: float = 2.0) -> float:
    distance = (fmt.roundtrip(weight, search).double() - weight.double()).abs()
    return float(distance.pow(power).sum())


@given(fmt=formats(), weight=weights(limit=1e37))
def test_searching_is_never_worse_than_the_full_range(fmt: UniformFormat, weight: Tensor):
    full = error(fmt, weight, MINMAX)
    assert error(fmt, weight, MSE) <= full * (1 + 1e-4) + 1e-80


@pytest.mark.parametrize("kind", ["int", "uint"])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group32"])
def test_searching_helps_where_a_weight_lies_far_out(kind: str, width: int, granularity: str):
    fmt = parsed(f"{kind}{width}/{granularity}")
    weight = normal(8, 512)
    weight[:, 0] = 8.0
    assert error(fmt, weight, MSE) < error(fmt, weight, MINMAX)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e30])
def test_the_choice_does_not_depend_on_the_unit(scale: float):
    # Powers of such errors leave float32's range.
    fmt = UniformFormat(3)
    weight = normal(4, 256)
    exact = 2.0 ** round(math.log2(scale))
    assert torch.equal(fmt.roundtrip(weight * exact, MSE), fmt.roundtrip(weight, MSE) * exact)


@pytest.mark.parametrize("power", [1.0, 2.4, 4.0])
def test_each_power_is_best_at_its_own_error(power: float):
    fmt, weight = UniformFormat(3), normal(1, 4096)
    own = error(fmt, weight, RangeSearch(steps=80, power=power), power)
    assert own <= min(
        error(fmt, weight, RangeSearch(steps=80, power=other), power) for other in (1.0, 2.0, 2.4)
    ) * (1 + 1e-9)


def test_a_higher_power_clips_less():
    fmt, weight = UniformFormat(3), normal(1, 4096)
    peaks = [
        float(fmt.roundtrip(weight, RangeSearch(80, power=power)).abs().max())
        for power in (1.0, 2.0, 8.0)
    ]
    assert peaks[0] < peaks[1] < peaks[2]


@pytest.mark.parametrize("search", [MINMAX, MSE], ids=["min-max", "mse"])
@pytest.mark.parametrize("kind", ["int", "uint"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group32"])
@pytest.mark.parametrize("seed", range(3))
def test_more_bits_are_never_worse(search: RangeSearch, kind: str, granularity: str, seed: int):
    weight = normal(16, 128, seed=seed)
    # One symmetric bit is fitted to the mean, not to the range: min-max of two bits may lose to it.
    least = 2 if kind == "int" and search is MINMAX else 1
    errors = [
        error(parsed(f"{kind}{width}/{granularity}"), weight, search) for width in range(least, 9)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("search", [MINMAX, MSE], ids=["min-max", "mse"])
def test_finer_granularity_is_better(search: RangeSearch):
    weight = normal(16, 128) * torch.logspace(-2, 0, 16).unsqueeze(1)
    weight *= torch.logspace(-1, 0, 128)
    errors = [error(parsed(f"int4/{g}"), weight, search) for g in ("tensor", "channel", "group32")]
    assert errors == sorted(errors, reverse=True)


def test_ragged_groups_are_searched_as_if_alone():
    fmt = UniformFormat(1, True, "group", 32)
    weight = normal(3, 35)
    search = RangeSearch(steps=40, power=1.0)
    assert torch.equal(fmt.roundtrip(weight, search)[:, 32:], fmt.roundtrip(weight[:, 32:], search))


def test_ratios_run_from_one_to_the_lowest():
    ratios = RangeSearch(steps=5, lowest=0.2).ratios
    assert ratios == pytest.approx((1.0, 0.8, 0.6, 0.4, 0.2))
    assert MINMAX.ratios == (1.0,)


def test_mpq_dm_tries_eighty_ratios_from_1_00_to_0_21_by_the_power_of_2_4():
    assert MPQ_DM.ratios == pytest.approx([(100 - step) / 100 for step in range(80)])
    assert MPQ_DM.power == 2.4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("steps", value) for value in (0, -3)),
        *(("lowest", value) for value in (0.0, -0.5, 1.5, math.nan)),
        *(("power", value) for value in (0.0, -1.0, math.inf, math.nan)),
    ],
)
def test_settings_out_of_their_domain_are_refused(field: str, value: float):
    with pytest.raises(FormatError, match=f"{field} is {value}"):
        RangeSearch(**{field: value})
