"""The search for output channels that take a bit more, and for those that pay with one."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import CalibrationError, FormatError, UsageError
from mezzotint.formats import MINMAX, ActivationFormat, MixedFormat, parse_weight_format
from mezzotint.plan import Encoding
from mezzotint.recipes.outlier_channels import ChannelSearch, Mixture, choose_mixture
from mezzotint.rounding import kurtosis
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.layer_grid import layer_grid
from mezzotint.runtime.operands import Conv2d, Linear, Operation
from tests.formats.strategies import normal

PAPER, RELEASED = ChannelSearch(), ChannelSearch("released")
ORDERS = ("kurtosis", "range", "random", "head-tail")
LAYERS: tuple[tuple[Operation, Tensor, Tensor], ...] = (
    (Linear(), normal(40, 24), normal(3, 7, 24, seed=1)),
    (
        Conv2d(ConvGeometry((3, 3), padding=((1, 1), (1, 1)))),
        normal(40, 4, 3, 3),
        normal(3, 4, 5, 5, seed=1),
    ),
)
EITHER = pytest.mark.parametrize(("operation", "weight", "x"), LAYERS, ids=["linear", "conv2d"])


def coarse(x: Tensor) -> Tensor:
    """Inputs rounded to sixteen codes of one range."""
    fmt = ActivationFormat(4, symmetric=False, granularity="tensor")
    scale, zero_point = fmt.range_parameters(float(x.min()), float(x.max()), x.device)
    return fmt.roundtrip(x, scale, zero_point)


def with_outliers(count: int, rows: int = 40) -> Tensor:
    """The weights of some first channels stand far out."""
    weight = normal(rows, 256)
    weight[:count, 0] = 12.0
    return weight


def restored(name: str, weight: Tensor, order: str) -> Tensor:
    """The weight as it is packed under a plan that names the format and the order."""
    fmt = parse_weight_format(name)
    assert fmt is not None
    grid = layer_grid(fmt, weight, Encoding(MINMAX, order=order))
    tensors = fmt.store(grid, grid.nearest_rows(weight))
    return fmt.decode(tensors, tuple(weight.shape))


def parts(name: str) -> dict[int, int]:
    """Width → output channels."""
    fmt = parse_weight_format(name)
    assert isinstance(fmt, MixedFormat)
    return dict(zip(fmt.widths, fmt.counts, strict=True))


class TestErrors:
    @EITHER
    @pytest.mark.parametrize("channels", ORDERS)
    @pytest.mark.parametrize("plus", [False, True])
    @pytest.mark.parametrize("rounding", [None, coarse])
    def test_they_are_those_of_the_packed_layer(
        self,
        operation: Operation,
        weight: Tensor,
        x: Tensor,
        channels: str,
        plus: bool,
        rounding: Callable[[Tensor], Tensor] | None,
    ):
        search = ChannelSearch(channels=channels, plus=plus)
        found = choose_mixture(weight, x, 2, rounding, search, operation)
        inputs = x if rounding is None else rounding(x)
        exact = operation.apply(x, weight, None)
        for m, error in found.errors.items():
            packed = restored(search.format_name(2, 40, m), weight, search.order)
            off = (operation.apply(inputs, packed, None) - exact).double().square().sum()
            assert error == pytest.approx(float(off), rel=1e-4)
        assert found.errors[found.m] == min(found.errors.values())
        assert found.format == search.format_name(2, 40, found.m)

    def test_inputs_come_in_pieces(self, monkeypatch: pytest.MonkeyPatch):
        for operation, weight, x in LAYERS:
            whole = choose_mixture(weight, x, 3, coarse, PAPER, operation)
            with monkeypatch.context() as patch:
                patch.setattr("mezzotint.recipes.outlier_channels._PIECE", 1)
                pieces = choose_mixture(weight, x, 3, coarse, PAPER, operation)
            assert pieces.m == whole.m
            assert list(pieces.errors.values()) == pytest.approx(list(whole.errors.values()))

    def test_weight_and_inputs_are_left_alone(self):
        operation, weight, x = LAYERS[0]
        before = weight.clone(), x.clone()
        choose_mixture(weight, x, 2, coarse, PAPER, operation)
        assert torch.equal(weight, before[0])
        assert torch.equal(x, before[1])


class TestSearch:
    def test_outliers_take_more_bits_and_their_number_is_found(self):
        weight, x = with_outliers(8), normal(64, 256, seed=1)
        found = choose_mixture(weight, x, 3, None, PAPER)
        assert found.m == 8
        assert found.format == "mixed/uint2:8,uint3:24,uint4:8"
        assert list(found.errors) == [0, 4, 8, 12, 16, 20]

    def test_the_released_search_looks_at_a_tenth_only(self):
        weight, x = with_outliers(8), normal(64, 256, seed=1)
        found = choose_mixture(weight, x, 3, None, RELEASED)
        assert (found.m, list(found.errors)) == (4, [0, 4])

    def test_the_released_search_does_not_round_the_input(self):
        operation, weight, x = LAYERS[0]
        released = [
            choose_mixture(weight, x, 2, each, RELEASED, operation) for each in (None, coarse)
        ]
        assert released[0] == released[1]
        paper = [choose_mixture(weight, x, 2, each, PAPER, operation) for each in (None, coarse)]
        assert paper[0].errors[0] < paper[1].errors[0]

    @pytest.mark.parametrize("bits", range(2, 8))
    def test_average_bits_are_exactly_those_asked_for(self, bits: int):
        for m in PAPER.counts(57):
            fmt = parse_weight_format(PAPER.format_name(bits, 57, m))
            assert fmt is not None
            assert fmt.bits == bits

    def test_ties_go_to_the_smaller_number(self):
        for weight, x in ((torch.zeros(20, 8), normal(5, 8)), (normal(20, 8), torch.zeros(5, 8))):
            found = choose_mixture(weight, x, 3, None, PAPER)
            assert set(found.errors.values()) == {0.0}
            assert found.m == 0

    @pytest.mark.parametrize("order", ORDERS)
    def test_each_segment_holds_the_channels_it_should(self, order: str):
        weight, search = with_outliers(5, 20), ChannelSearch(channels=order)
        fmt = parse_weight_format(search.format_name(2, 20, 4))
        assert isinstance(fmt, MixedFormat)
        grid = layer_grid(fmt, weight, Encoding(MINMAX, order=search.order))
        few, _, many = (set(rows.tolist()) for rows in grid.channels)
        by_kurtosis = kurtosis(weight).argsort().tolist()
        by_range = (weight.amax(1) - weight.amin(1)).argsort().tolist()
        expected = {
            "kurtosis": (set(by_kurtosis[:4]), set(by_kurtosis[-4:])),
            "range": (set(by_range[:4]), set(by_range[-4:])),
            "head-tail": ({16, 17, 18, 19}, {0, 1, 2, 3}),
        }
        if order == "random":
            assert (few, many) not in expected.values()
            # A larger number takes the same channels, and others.
            more = parse_weight_format(search.format_name(2, 20, 6))
            larger = layer_grid(more, weight, Encoding(MINMAX, order="random")).channels
            assert few < set(larger[0].tolist())
            assert many < set(larger[2].tolist())
        else:
            assert (few, many) == expected[order]

    def test_kurtosis_beats_the_other_rankings_where_outliers_are(self):
        weight, x = with_outliers(8).roll(11, 0), normal(64, 256, seed=1)
        searches = [ChannelSearch(channels=order) for order in ORDERS]
        least = {
            each.channels: min(choose_mixture(weight, x, 3, None, each).errors.values())
            for each in searches
        }
        assert least["kurtosis"] < 0.95 * least["random"]
        assert least["kurtosis"] < 0.95 * least["head-tail"]

    def test_range_beats_kurtosis_where_channels_differ_in_size(self):
        weight, x = normal(40, 256) * torch.linspace(0.2, 2, 40)[:, None], normal(64, 256, seed=1)
        by_range = choose_mixture(weight, x, 3, None, ChannelSearch(channels="range"))
        by_kurtosis = choose_mixture(weight, x, 3, None, PAPER)
        assert by_range.errors[by_range.m] < 0.8 * by_kurtosis.errors[by_kurtosis.m]

    def test_none_leaves_every_channel_at_the_same_bits(self):
        search = ChannelSearch(channels="none")
        found = choose_mixture(with_outliers(8), normal(9, 256), 3, None, search)
        assert (found.m, found.format, list(found.errors)) == (0, "uint3/channel", [0])


class TestPlus:
    def test_no_channel_pays(self):
        weight, x = with_outliers(8), normal(64, 256, seed=1)
        paid = choose_mixture(weight, x, 3, None, PAPER)
        plus = choose_mixture(weight, x, 3, None, ChannelSearch(plus=True))
        assert plus.format == "mixed/uint3:32,uint4:8"
        assert plus.errors[plus.m] < paid.errors[paid.m]

    def test_it_raises_no_more_channels_than_the_search_finds(self):
        weight, x = with_outliers(8), normal(64, 256, seed=1)
        plus = choose_mixture(weight, x, 3, None, ChannelSearch(plus=True))
        assert list(plus.errors) == [0, 4, 8]


class TestFreeLevels:
    def test_channels_of_one_bit_have_two_free_levels(self):
        assert PAPER.format_name(2, 20, 4) == "mixed/kmeans1:4,uint2:12,uint3:4"
        assert PAPER.format_name(2, 20, 10) == "mixed/kmeans1:10,uint3:10"

    def test_they_may_be_affine(self):
        search = ChannelSearch(one_bit_levels=False)
        assert search.format_name(2, 20, 4) == "mixed/uint1:4,uint2:12,uint3:4"
        operation, weight, x = LAYERS[0]
        affine, free = (
            choose_mixture(weight, x, 2, None, each, operation) for each in (search, PAPER)
        )
        assert affine.errors[0] == free.errors[0]
        assert affine.errors[20] > free.errors[20]


class TestEdges:
    @pytest.mark.parametrize("rows", [1, 2, 9])
    def test_few_channels_are_not_told_apart(self, rows: int):
        found = choose_mixture(normal(rows, 8), normal(5, 8), 2, coarse, PAPER)
        assert (found.m, found.format, list(found.errors)) == (0, "uint2/channel", [0])

    @pytest.mark.parametrize("rows", [10, 11, 57])
    def test_the_step_is_a_tenth_of_them_rounded_down(self, rows: int):
        step = rows // 10
        assert PAPER.counts(rows) == tuple(range(0, 6 * step, step))
        assert RELEASED.counts(rows) == (0, step)

    def test_dead_channels_pay(self):
        weight, x = normal(20, 64), normal(30, 64, seed=1)
        weight[3] = weight[17] = 0.0
        weight[5, 0] = weight[6, 0] = 30.0
        found = choose_mixture(weight, x, 3, None, PAPER)
        assert found.m >= 2
        fmt = parse_weight_format(found.format)
        assert fmt is not None
        grid = layer_grid(fmt, weight, Encoding(MINMAX))
        assert {3, 17} <= set(grid.channels[0].tolist())
        assert {5, 6} <= set(grid.channels[2].tolist())

    @given(
        value=st.sampled_from([0.0, 1.0, -3e4]),
        rows=st.integers(1, 24),
        bits=st.integers(2, 7),
        search=st.sampled_from([RELEASED, *(ChannelSearch(channels=order) for order in ORDERS)]),
    )
    def test_constant_inputs_and_zero_weights_pass(
        self, value: float, rows: int, bits: int, search: ChannelSearch
    ):
        for weight in (torch.zeros(rows, 6), normal(rows, 6)):
            found = choose_mixture(weight, torch.full((4, 6), value), bits, coarse, search)
            assert isinstance(found, Mixture)
            fmt = parse_weight_format(found.format)
            assert fmt is not None
            assert fmt.bits == bits

    def test_images_of_one_pixel(self):
        operation = Conv2d(ConvGeometry((3, 3), padding=((1, 1), (1, 1))))
        weight, x = normal(20, 4, 3, 3), normal(1, 4, 1, 1)
        assert choose_mixture(weight, x, 2, coarse, PAPER, operation).errors[0] > 0

    @pytest.mark.parametrize("bits", [1, 8])
    def test_a_width_without_neighbours_is_refused_by_the_name_of_the_option(self, bits: int):
        with pytest.raises(UsageError, match=f"weight_bits is {bits}.*channels 'none'"):
            choose_mixture(normal(20, 8), normal(5, 8), bits, None, PAPER)
        none = ChannelSearch(channels="none")
        name = "kmeans1/channel" if bits == 1 else "uint8/channel"
        assert choose_mixture(normal(20, 8), normal(5, 8), bits, None, none).format == name

    def test_nan_is_refused(self):
        x = normal(5, 8)
        x[2, 3] = torch.nan
        with pytest.raises(CalibrationError, match="NaN or infinity"):
            choose_mixture(normal(20, 8), x, 2, None, PAPER)
        with pytest.raises(FormatError, match="NaN or infinite"):
            choose_mixture(torch.full((20, 8), torch.nan), normal(5, 8), 2, None, PAPER)

    def test_another_word_is_refused(self):
        with pytest.raises(UsageError, match="channels"):
            ChannelSearch(channels="variance")
