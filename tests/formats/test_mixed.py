import itertools
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import (
    MINMAX,
    MPQ_DM,
    MSE,
    CodebookFormat,
    LookupSegment,
    LutFormat,
    MixedFormat,
    RangeSearch,
    TensorSpec,
    UniformFormat,
    parse_weight_format,
)
from mezzotint.rounding import channel_order
from tests.formats.strategies import WIDTHS, normal, weights
from tests.formats.test_kmeans import least_error


def mixed(
    widths: tuple[int, ...],
    counts: tuple[int, ...],
    symmetric: bool = True,
    wide_scale: bool = False,
) -> MixedFormat:
    formats = [UniformFormat(width, symmetric, wide_scale=wide_scale) for width in widths]
    return MixedFormat(tuple(formats), counts)


def free(rows: int, *others: tuple[int, int], symmetric: bool = False) -> MixedFormat:
    """A mixture whose first `rows` stored rows have two levels each; then widths and counts."""
    kind = "int" if symmetric else "uint"
    segments = ",".join(f"{kind}{width}:{count}" for width, count in others)
    found = parse_weight_format(f"mixed/kmeans1:{rows},{segments}")
    assert isinstance(found, MixedFormat)
    return found


FORMATS = [
    mixed((2, 3, 4), (1, 2, 1)),
    mixed((1, 2, 3), (1, 1, 2), symmetric=False),
    mixed((3, 8), (3, 1)),
    mixed((1, 5), (1, 3), symmetric=False),
    mixed((1, 2, 7, 8), (1, 1, 1, 1)),
    mixed((2, 5), (2, 2), symmetric=False, wide_scale=True),
    free(1, (2, 2), (3, 1)),
    free(2, (3, 1), (8, 1), symmetric=True),
    MixedFormat((LutFormat(2), LutFormat(3)), (2, 2)),
]
EVERY_FORMAT = pytest.mark.parametrize("fmt", FORMATS, ids=str)
SHAPES = ((4, 1), (4, 7), (4, 9), (4, 33), (4, 3, 3, 3), (4, 4, 1, 1))
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
HUGE = torch.finfo(torch.float32).max / 2


@st.composite
def formats(draw, rows: int) -> MixedFormat:
    """Any, for that many output channels."""
    count = draw(st.integers(2, min(rows, 4)))
    kinds = (UniformFormat, partial(UniformFormat, symmetric=False), LutFormat)
    kind = draw(st.sampled_from(kinds))
    known = range(1, 7) if kind is LutFormat else WIDTHS
    widths = sorted(draw(st.sets(st.sampled_from(known), min_size=count, max_size=count)))
    cuts = draw(st.sets(st.integers(1, rows - 1), min_size=count - 1, max_size=count - 1))
    edges = [0, *sorted(cuts), rows]
    counts = tuple(b - a for a, b in itertools.pairwise(edges))
    segments = list(map(kind, widths))
    if widths[0] == 1 and draw(st.booleans()):
        segments[0] = CodebookFormat(1)
    return MixedFormat(tuple(segments), counts)


@st.composite
def cases(draw) -> tuple[MixedFormat, Tensor]:
    weight = draw(weights(rows=8).filter(lambda drawn: len(drawn) > 1))
    return draw(formats(len(weight))), weight


def encode_ordered(
    fmt: MixedFormat, weight: Tensor, order: Tensor, search: RangeSearch = MINMAX
) -> dict[str, Tensor]:
    grid = fmt.grid(weight, search, order)
    return fmt.store(grid, grid.nearest_rows(weight))


def assert_as_if_alone(fmt: MixedFormat, weight: Tensor, tensors: dict[str, Tensor]) -> None:
    """The channels of each segment are what its own format makes of them."""
    restored = fmt.decode(tensors, tuple(weight.shape))
    channels = torch.split(tensors["order"].argsort(), list(fmt.counts))
    for own, rows in zip(fmt.formats, channels, strict=True):
        assert torch.equal(restored[rows], own.roundtrip(weight[rows], MINMAX))


class TestNames:
    @EVERY_FORMAT
    def test_a_format_is_known_by_its_name(self, fmt: MixedFormat):
        assert parse_weight_format(fmt.name) == fmt

    def test_the_name_says_everything(self):
        expected = mixed((2, 3, 4), (64, 128, 64))
        assert expected.name == "mixed/int2:64,int3:128,int4:64"
        assert mixed((1, 3), (5, 6), symmetric=False).name == "mixed/uint1:5,uint3:6"

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("mixed/int3:4", "fewer than two widths"),
            ("mixed/int3:4,int2:4", "ascending"),
            ("mixed/int3:4,int3:4", "ascending, each one once"),
            ("mixed/int3:4,uint4:4", "all 'int' or all 'uint'"),
            ("mixed/int3:4,int9:4", "bits is 9"),
            ("mixed/lut2:4,int3:4", "all 'int' or all 'uint', or all 'lut'"),
            ("mixed/kmeans1:4,int3:4,uint4:4", "all 'int' or all 'uint'"),
            ("mixed/kmeans2:4,uint3:4", "kmeans2/channel is no format of a segment"),
            ("mixed/kmeans1:4,kmeans2:4", "kmeans2/channel is no format of a segment"),
            ("mixed/int1:4,kmeans1:4,int2:4", "ascending, each one once"),
            ("mixed/kmeans1:4,lut2:4/float32", "no scales of another dtype"),
        ],
    )
    def test_another_spelling_of_a_format_is_refused_with_the_name(self, name: str, complaint: str):
        with pytest.raises(FormatError, match=f"'{name}'.*{complaint}"):
            parse_weight_format(name)

    @pytest.mark.parametrize(
        "name",
        ["mixed/", "mixed/int2", "mixed/int2:0,int3:4", "mixed/int2:04,int3:4", "mixed/int2:4,"],
    )
    def test_what_is_no_name_is_unknown(self, name: str):
        with pytest.raises(FormatError, match="unknown weight format"):
            parse_weight_format(name)

    @pytest.mark.parametrize(
        ("widths", "counts"), [((2, 3), (4,)), ((2, 3), (0, 4)), ((2, 3), (-1, 4)), ((), ())]
    )
    def test_widths_and_counts_go_together(self, widths: tuple[int, ...], counts: tuple[int, ...]):
        with pytest.raises(FormatError, match=r"counts|two widths"):
            mixed(widths, counts)

    def test_bits_are_the_average_of_channels(self):
        assert mixed((2, 3, 4), (64, 128, 64)).bits == 3.0
        assert mixed((1, 3), (1, 3)).bits == 2.5


class TestStorage:
    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_encoding_matches_the_layout(self, fmt: MixedFormat, shape: tuple[int, ...]):
        tensors = fmt.encode(normal(*shape), MINMAX)
        layout = fmt.layout(shape)
        assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
            name: (spec.shape, spec.dtype) for name, spec in layout.items()
        }
        assert fmt.stored_bytes(shape) == sum(
            t.numel() * t.element_size() for t in tensors.values()
        )

    def test_segments_are_named_by_number(self):
        assert list(FORMATS[1].layout((4, 9))) == [
            *("codes0", "scale0", "zero_point0"),
            *("codes1", "scale1", "zero_point1"),
            *("codes2", "scale2", "zero_point2"),
            "order",
        ]

    def test_a_mixture_costs_its_parts_and_the_order(self):
        fmt = mixed((2, 3, 4), (64, 128, 64))
        parts = [(2, 64), (3, 128), (4, 64)]
        assert fmt.stored_bytes((256, 40)) == 256 * 4 + sum(
            UniformFormat(width).stored_bytes((count, 40)) for width, count in parts
        )

    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_decoding_gives_float32_of_the_shape(self, fmt: MixedFormat, shape: tuple[int, ...]):
        restored = fmt.roundtrip(normal(*shape), MINMAX)
        assert (restored.shape, restored.dtype) == (shape, torch.float32)

    @EVERY_FORMAT
    def test_counts_that_do_not_fit_the_weight_are_refused(self, fmt: MixedFormat):
        for call in (lambda: fmt.layout((5, 8)), lambda: fmt.encode(normal(5, 8), MINMAX)):
            with pytest.raises(FormatError) as caught:
                call()
            assert f"{fmt} holds 4 output channels" in str(caught.value)
            assert "has 5; name counts that sum to 5" in str(caught.value)

    @EVERY_FORMAT
    @pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0)], ids=str)
    def test_vectors_and_empty_weights_are_refused(self, fmt: MixedFormat, shape: tuple[int, ...]):
        for call in (lambda: fmt.encode(torch.ones(shape), MINMAX), lambda: fmt.layout(shape)):
            with pytest.raises(FormatError, match="cannot be quantized"):
                call()


class TestChannels:
    @given(case=cases())
    def test_each_channel_is_encoded_as_if_alone_at_its_width(
        self, case: tuple[MixedFormat, Tensor]
    ):
        fmt, weight = case
        tensors = fmt.encode(weight, MINMAX)
        assert_as_if_alone(fmt, weight, tensors)

    @EVERY_FORMAT
    @pytest.mark.parametrize("shape", [(4, 33), (4, 3, 3, 3)], ids=str)
    def test_any_order_may_be_given(self, fmt: MixedFormat, shape: tuple[int, ...]):
        weight, order = normal(*shape), torch.tensor([2, 0, 3, 1])
        tensors = encode_ordered(fmt, weight, order)
        assert tensors["order"].tolist() == order.tolist()
        assert_as_if_alone(fmt, weight, tensors)

    @EVERY_FORMAT
    def test_by_default_channels_are_stored_as_they_come(self, fmt: MixedFormat):
        assert fmt.encode(normal(4, 33), MINMAX)["order"].tolist() == [0, 1, 2, 3]

    @given(case=cases(), data=st.data())
    def test_an_order_permutes_rows_and_changes_nothing_else(
        self, case: tuple[MixedFormat, Tensor], data: st.DataObject
    ):
        fmt, weight = case
        order = torch.tensor(data.draw(st.permutations(range(len(weight)))))
        given_order, as_they_come = (
            encode_ordered(fmt, weight, order),
            fmt.encode(weight[order.argsort()], MINMAX),
        )
        for name in set(as_they_come) - {"order"}:
            assert torch.equal(given_order[name], as_they_come[name])

    @pytest.mark.parametrize(
        "order", [[0, 1, 2], [0, 1, 2, 2], [1, 2, 3, 4], [-1, 0, 1, 2], [[0, 1, 2, 3]]], ids=str
    )
    def test_an_order_that_is_no_permutation_is_refused(self, order: list[int]):
        with pytest.raises(FormatError, match="order is not a permutation of the 4 output"):
            encode_ordered(FORMATS[0], normal(4, 8), torch.tensor(order))

    def test_more_bits_for_outliers_are_worth_it(self):
        weight = normal(64, 256)
        weight[::4, 0] = 12.0
        fmt = mixed((2, 3, 4), (16, 32, 16))
        uniform = UniformFormat(3)

        def error(restored: Tensor) -> float:
            return float((restored - weight).square().sum())

        order = channel_order(weight, fmt.counts)
        by_kurtosis, reverse = (
            fmt.decode(encode_ordered(fmt, weight, each), (64, 256)) for each in (order, 63 - order)
        )
        assert error(by_kurtosis) < error(reverse)
        assert error(by_kurtosis) < error(uniform.roundtrip(weight, MINMAX))

    @pytest.mark.parametrize("fmt", FORMATS[:-1], ids=str)
    def test_a_range_search_helps(self, fmt: MixedFormat):
        weight = normal(4, 500)
        full, searched = fmt.roundtrip(weight, MINMAX), fmt.roundtrip(weight, MSE)
        assert (searched - weight).square().sum() < (full - weight).square().sum()


class TestFreeLevels:
    """Channels of one bit with two levels each: `kmeans1` segments."""

    @given(case=cases())
    def test_the_first_segment_is_a_codebook_of_two_levels_per_channel(self, case):
        fmt, weight = case
        segment = fmt.segments(fmt.encode(weight, MINMAX), tuple(weight.shape))[0]
        free = fmt.formats[0] == CodebookFormat(1)
        assert (isinstance(segment, LookupSegment) and segment.two_levels) == free

    def test_levels_are_stored_in_bfloat16(self):
        layout = free(3, (2, 1)).layout((4, 9))
        assert layout["codebook0"] == TensorSpec((3, 2), torch.int16)
        assert list(layout) == ["codes0", "codebook0", "codes1", "scale1", "zero_point1", "order"]

    def test_they_are_the_best_two(self):
        weight, fmt = normal(40, 96), free(39, (2, 1))
        weight[:20] = weight[:20].exp()
        error = (fmt.roundtrip(weight, MINMAX)[:39] - weight[:39]).square().sum(1)
        best = torch.tensor([least_error(row.tolist(), 2) for row in weight[:39]])
        decibels = 10 * (error / best).log10()
        assert float(decibels.max()) < 0.1

    def test_an_affine_channel_of_one_bit_is_worse(self):
        weight = normal(40, 96)

        def error(fmt: MixedFormat) -> float:
            return float((fmt.roundtrip(weight, MPQ_DM) - weight)[:39].square().sum())

        assert error(free(39, (2, 1))) < 0.8 * error(mixed((1, 2), (39, 1), symmetric=False))

    @EVERY_FORMAT
    def test_no_channel_takes_more_values_than_its_width_allows(self, fmt: MixedFormat):
        restored = fmt.roundtrip(normal(4, 500), MINMAX)
        channels = torch.split(torch.arange(4), list(fmt.counts))
        for width, rows in zip(fmt.widths, channels, strict=True):
            assert all(len(row.unique()) <= 2**width for row in restored[rows])


class TestExtremes:
    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, -1e30, HUGE])
    def test_constants_survive(self, fmt: MixedFormat, value: float):
        weight = torch.full((4, 5), value)
        rounding = 1e-5 if fmt.name.endswith("float32") else 2.0**-7
        assert torch.allclose(fmt.roundtrip(weight, MINMAX), weight, rtol=rounding, atol=1e-37)

    @given(case=cases())
    def test_decoded_weights_are_finite_whatever_comes_in(self, case: tuple[MixedFormat, Tensor]):
        fmt, weight = case
        assert bool(torch.isfinite(fmt.roundtrip(weight, MINMAX)).all())

    @given(case=cases())
    def test_quantizing_what_was_quantized_changes_nothing_in_the_same_order(
        self, case: tuple[MixedFormat, Tensor]
    ):
        fmt, weight = case
        fmt = mixed(fmt.widths, fmt.counts)
        tensors = fmt.encode(weight, MINMAX)
        once = fmt.decode(tensors, tuple(weight.shape))
        twice = fmt.decode(encode_ordered(fmt, once, tensors["order"]), tuple(weight.shape))
        assert torch.allclose(twice, once, rtol=1e-5, atol=1e-37)


class TestIndependence:
    @EVERY_FORMAT
    def test_weight_order_and_stored_tensors_are_left_alone(self, fmt: MixedFormat):
        weight, order = normal(4, 40), torch.tensor([2, 0, 3, 1], dtype=torch.int32)
        kept = weight.clone()
        tensors = encode_ordered(fmt, weight, order)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        fmt.decode(tensors, (4, 40)).zero_()
        order.zero_()
        assert torch.equal(weight, kept)
        assert all(torch.equal(tensors[name], before[name]) for name in tensors)

    @EVERY_FORMAT
    def test_memory_order_does_not_matter(self, fmt: MixedFormat):
        weight = normal(4, 6, 3, 3)
        plain = fmt.roundtrip(weight, MINMAX)
        assert torch.equal(
            fmt.roundtrip(weight.to(memory_format=torch.channels_last), MINMAX), plain
        )

    @EVERY_FORMAT
    def test_views_are_encoded_like_copies(self, fmt: MixedFormat):
        wide = normal(4, 60)
        for view in (wide[:, :7], wide[:, ::2], wide.view(60, 4).t()):
            assert torch.equal(
                fmt.roundtrip(view, MINMAX), fmt.roundtrip(view.contiguous(), MINMAX)
            )

    @EVERY_FORMAT
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_other_floating_types_are_taken_at_their_value(
        self, fmt: MixedFormat, dtype: torch.dtype
    ):
        weight = torch.nn.Parameter(normal(4, 40).bfloat16().to(dtype))
        assert torch.equal(fmt.roundtrip(weight, MINMAX), fmt.roundtrip(weight.float(), MINMAX))


class TestDamage:
    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_weight_with_nan_or_infinity_is_refused(self, fmt: MixedFormat, value: float):
        weight = normal(4, 5)
        weight[1, 2] = value
        for encode in (
            partial(fmt.encode, search=MINMAX),
            lambda weight: encode_ordered(fmt, weight, torch.arange(4)),
        ):
            with pytest.raises(FormatError, match="NaN or infinite"):
                encode(weight)

    @EVERY_FORMAT
    def test_what_was_encoded_passes_the_check(self, fmt: MixedFormat):
        for weight in (normal(4, 40), torch.zeros(4, 40), torch.full((4, 40), HUGE)):
            fmt.check(fmt.encode(weight, MINMAX))

    @EVERY_FORMAT
    def test_a_bad_scale_fails_it_and_its_segment_is_named(self, fmt: MixedFormat):
        tensors = fmt.encode(normal(4, 40), MINMAX)
        last = len(fmt.widths) - 1
        tensors[f"scale{last}"][0] = 0
        with pytest.raises(FormatError, match=f"segment {last}, {fmt.formats[-1]}: scale"):
            fmt.check(tensors)

    def test_a_bad_zero_point_fails_it_and_its_segment_is_named(self):
        tensors = FORMATS[1].encode(normal(4, 40), MINMAX)
        tensors["zero_point0"][0] = 2
        with pytest.raises(FormatError, match="segment 0, uint1/channel: zero_point"):
            FORMATS[1].check(tensors)

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [-1, 4, 2**31 - 1, -(2**31)])
    def test_an_order_beyond_the_rows_fails_it(self, fmt: MixedFormat, value: int):
        tensors = fmt.encode(normal(4, 40), MINMAX)
        tensors["order"][2] = value
        with pytest.raises(FormatError, match="order is not a permutation"):
            fmt.check(tensors)

    @EVERY_FORMAT
    def test_a_row_named_twice_fails_it(self, fmt: MixedFormat):
        tensors = fmt.encode(normal(4, 40), MINMAX)
        tensors["order"][0] = tensors["order"][1]
        with pytest.raises(FormatError, match="order is not a permutation"):
            fmt.check(tensors)
