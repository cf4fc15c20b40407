import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.rounding import channel_order, kurtosis, order_named
from tests.formats.strategies import normal, weights

ORDERS = ("kurtosis", "range", "stored", "head-tail", "random")


def with_outliers(rows: int, columns: int, worst: list[int]) -> Tensor:
    """The channels `worst` have outliers, each farther out than the one before."""
    weight = normal(rows, columns)
    for rank, row in enumerate(worst):
        weight[row, 0] = 20.0 + 10.0 * rank
    return weight


class TestKurtosis:
    def test_of_a_sign_is_one(self):
        assert kurtosis(torch.tensor([[1.0, -1.0, 1.0, -1.0]])).tolist() == [1.0]

    def test_by_hand(self):
        # Mean 1, squares 1, 1, 1, 9: variance 3; fourth powers 1, 1, 1, 81.
        assert kurtosis(torch.tensor([[0.0, 0.0, 0.0, 4.0]])).item() == pytest.approx(21 / 9)

    def test_of_normal_weights_is_three(self):
        assert kurtosis(normal(1, 200_000)).item() == pytest.approx(3, abs=0.05)

    def test_of_a_constant_channel_is_nought(self):
        assert kurtosis(torch.full((2, 7), 0.1)).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("factor", [1e-38, 1e-20, 1e30])
    def test_does_not_depend_on_the_unit(self, factor: float):
        exact = 2.0 ** round(math.log2(factor))
        weight = normal(3, 50).mul_(4).round_()
        assert torch.equal(kurtosis(weight * exact), kurtosis(weight))

    @given(weight=weights(limit=3e38))
    def test_is_finite_whatever_comes_in(self, weight: Tensor):
        found = kurtosis(weight)
        assert (found.shape, found.dtype) == ((len(weight),), torch.float64)
        assert bool(torch.isfinite(found).all())
        assert bool((found >= 0).all())

    def test_of_a_convolution_is_that_of_its_channels(self):
        weight = normal(6, 4, 3, 3)
        assert torch.equal(kurtosis(weight), kurtosis(weight.flatten(1)))

    @pytest.mark.parametrize("shape", [(9, 40), (5, 4, 3, 3)], ids=str)
    def test_is_that_of_scipy(self, shape: tuple[int, ...]):
        weight = normal(*shape).pow(3)
        expected = stats.kurtosis(weight.flatten(1).double().numpy(), axis=1, fisher=False)
        assert kurtosis(weight).numpy() == pytest.approx(expected, rel=1e-10)


class TestOrder:
    def test_the_worst_outliers_stand_last(self):
        order = channel_order(with_outliers(6, 256, worst=[1, 4]), [4, 2])
        assert order.dtype == torch.int64
        assert order.tolist() == [0, 4, 1, 2, 5, 3]

    def test_of_three_segments(self):
        order = channel_order(with_outliers(6, 256, worst=[5, 0, 3]), [3, 2, 1])
        assert order.tolist() == [3, 0, 1, 5, 2, 4]

    @given(weight=weights(rows=8), data=st.data())
    def test_is_a_permutation_whose_segments_rise_in_kurtosis(self, weight: Tensor, data):
        first = data.draw(st.integers(0, len(weight)))
        order = channel_order(weight, [first, len(weight) - first])
        assert order.sort().values.tolist() == list(range(len(weight)))
        stored = kurtosis(weight)[order.argsort()]
        assert bool((stored[:first].unsqueeze(1) <= stored[first:]).all())

    def test_equal_channels_keep_their_order(self):
        assert channel_order(torch.ones(5, 3), [2, 3]).tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("name", "few", "many"),
        [
            ("kurtosis", [0, 2], [1, 4]),
            ("range", [3, 5], [1, 4]),
            ("stored", [0, 1], [4, 5]),
            ("head-tail", [4, 5], [0, 1]),
        ],
    )
    def test_an_order_assigns_channels_to_widths(self, name: str, few: list[int], many: list[int]):
        weight = with_outliers(6, 256, worst=[1, 4])
        weight[[0, 2]] = 5 * weight[[0, 2]].sign()
        weight[[3, 5]] = weight[[3, 5]].tanh()
        channels = order_named(name)(weight, [2, 2, 2]).argsort()
        assert (channels[:2].tolist(), channels[4:].tolist()) == (few, many)

    def test_a_random_order_is_the_same_each_time_and_none_of_the_others(self):
        weight, counts = with_outliers(40, 16, worst=[1, 4]), [10, 20, 10]
        found = {name: order_named(name)(weight, counts).tolist() for name in ORDERS}
        assert sorted(found["random"]) == list(range(40))
        assert found["random"] == order_named("random")(normal(40, 3, seed=5), counts).tolist()
        assert len({tuple(order) for order in found.values()}) == len(ORDERS)

    def test_counts_that_do_not_fit_are_refused(self):
        with pytest.raises(FormatError, match=r"counts sum to 5.*has 4 output channels"):
            channel_order(normal(4, 8), [2, 3])

    def test_nan_is_refused(self):
        weight = normal(4, 8)
        weight[0, 0] = math.nan
        with pytest.raises(FormatError, match="NaN"):
            channel_order(weight, [2, 2])
