import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import (
    MINMAX,
    MSE,
    LookupGrid,
    LutFormat,
    as_bits,
    book_sums,
    chunks,
    from_bits,
    grid,
    integer_book,
    parse_weight_format,
)
from tests.formats.strategies import SHAPES, normal, unpacked, weights

FORMATS = [LutFormat(width) for width in range(1, 7)]
EVERY_FORMAT = pytest.mark.parametrize("fmt", FORMATS, ids=str)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
ANY_FORMAT = st.sampled_from(FORMATS)

HUGE = torch.finfo(torch.float32).max

EXTREMES = [
    torch.zeros(2, 9),
    torch.full((2, 9), 0.3),
    torch.full((2, 9), HUGE),
    torch.full((2, 9), 1e-38),
    torch.full((2, 9), 1e-45),
    torch.tensor([[-HUGE, HUGE, 0.0], [1.0, -1.0, 1e-38]]),
    torch.tensor([[1e30, 1e-38], [-1e30, 65504.0]]),
]


def error(fmt, weight: Tensor) -> float:
    return float((fmt.roundtrip(weight, MINMAX).double() - weight.double()).square().sum())


def scale_of(tensors: dict[str, Tensor]) -> Tensor:
    return from_bits(tensors["scale"], torch.bfloat16)


@st.composite
def uniform_weights(draw) -> tuple[int, Tensor]:
    """A width, and a weight of its symmetric codes by scales of bfloat16 per row."""
    width = draw(st.integers(1, 6))
    rows, columns = draw(st.tuples(st.integers(1, 4), st.integers(1, 20)))
    half = 2 ** (width - 1)
    codes = st.sampled_from([-1, 1]) if width == 1 else st.integers(-half, half - 1)
    row = st.lists(codes, min_size=columns, max_size=columns)
    matrix = torch.tensor(draw(st.lists(row, min_size=rows, max_size=rows))).float()
    scale = st.floats(2.0**-60, 2.0**60, width=32)
    scales = torch.tensor(draw(st.lists(scale, min_size=rows, max_size=rows)))
    return width, matrix * scales.bfloat16().float().unsqueeze(1)


class TestStorage:
    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_encoding_matches_the_layout(self, fmt: LutFormat, shape: tuple[int, ...]):
        tensors = fmt.encode(normal(*shape), MINMAX)
        assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
            name: (spec.shape, spec.dtype) for name, spec in fmt.layout(shape).items()
        }
        assert fmt.stored_bytes(shape) == sum(
            t.numel() * t.element_size() for t in tensors.values()
        )

    def test_a_row_costs_two_bytes_and_a_level_of_the_layer_one(self):
        assert LutFormat(4).stored_bytes((10, 64)) == 10 * 32 + 10 * 2 + 16

    @EVERY_FORMAT
    def test_fewer_bytes_than_float32_scales(self, fmt: LutFormat):
        uniform = parse_weight_format(f"int{fmt.width}/channel/float32")
        assert uniform is not None
        assert fmt.stored_bytes((64, 64)) < uniform.stored_bytes((64, 64))

    @EVERY_FORMAT
    def test_a_weight_is_the_scaled_level_of_its_code(self, fmt: LutFormat):
        shape = (9, 5, 3, 3)
        tensors = fmt.encode(normal(*shape), MINMAX)
        levels = tensors["book"].float()[0, unpacked(fmt, tensors, shape).long()]
        assert torch.equal(fmt.decode(tensors, shape), (levels * scale_of(tensors)).view(shape))

    @EVERY_FORMAT
    def test_levels_ascend_from_minus_127_to_127_at_most(self, fmt: LutFormat):
        book = fmt.encode(normal(9, 700), MINMAX)["book"].int()
        assert bool((book.diff() > 0).all())
        assert int(book.abs().max()) <= 127

    @EVERY_FORMAT
    def test_levels_use_the_range_of_8_bits(self, fmt: LutFormat):
        assert int(fmt.encode(normal(9, 700), MINMAX)["book"].int().abs().max()) > 100

    @EVERY_FORMAT
    def test_large_weights_are_taken_piece_by_piece(
        self, fmt: LutFormat, monkeypatch: pytest.MonkeyPatch
    ):
        weight = normal(7, 20)
        whole = fmt.encode(weight, MINMAX)
        restored = fmt.decode(whole, (7, 20))
        for module in (book_sums, chunks, grid, integer_book):
            monkeypatch.setattr(module, "CHUNK" if module is chunks else "PIECE", 50)
        pieces = fmt.encode(weight, MINMAX)
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)
        assert torch.equal(fmt.decode(whole, (7, 20)), restored)

    @EVERY_FORMAT
    @pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0)], ids=str)
    def test_vectors_and_empty_weights_are_refused(self, fmt: LutFormat, shape: tuple[int, ...]):
        for call in (lambda: fmt.encode(torch.ones(shape), MINMAX), lambda: fmt.layout(shape)):
            with pytest.raises(FormatError, match="cannot be quantized"):
                call()

    @pytest.mark.parametrize("width", [-1, 0, 7])
    def test_widths_are_one_to_six(self, width: int):
        with pytest.raises(FormatError, match=f"bits is {width}"):
            LutFormat(width)


class TestAccuracy:
    @given(case=uniform_weights())
    def test_a_weight_on_a_uniform_grid_is_exact(self, case: tuple[int, Tensor]):
        width, weight = case
        assert torch.equal(LutFormat(width).roundtrip(weight, MINMAX), weight)

    @EVERY_FORMAT
    @pytest.mark.parametrize("search", [MINMAX, MSE], ids=["minmax", "mse"])
    def test_what_a_uniform_format_stored_is_exact(self, fmt: LutFormat, search):
        uniform = parse_weight_format(f"int{fmt.width}/channel")
        assert uniform is not None
        weight = uniform.roundtrip(normal(16, 320), search)
        assert torch.equal(fmt.roundtrip(weight, MINMAX), weight)

    @given(fmt=ANY_FORMAT, weight=weights())
    def test_every_weight_takes_its_nearest_level(self, fmt: LutFormat, weight: Tensor):
        tensors = fmt.encode(weight, MINMAX)
        levels = tensors["book"].double() * scale_of(tensors).double()
        distance = (fmt.decode(tensors, tuple(weight.shape)).double() - weight.double()).abs()
        least = (weight.double().unsqueeze(2) - levels.unsqueeze(1)).abs().amin(2)
        # Where two are as near as float32 can tell, either will do.
        slack = 1e-6 * levels.abs().amax(1, keepdim=True) + 1e-44
        assert bool((distance <= least + slack).all())

    @given(fmt=ANY_FORMAT, weight=weights())
    def test_quantizing_what_was_quantized_does_no_more_harm_than_before(
        self, fmt: LutFormat, weight: Tensor
    ):
        once = fmt.roundtrip(weight, MINMAX)
        assert bool(torch.isfinite(once).all())
        assert bool((once.abs().amax(1) <= 2 * weight.abs().amax(1) + 1e-35).all())

    @EVERY_FORMAT
    @pytest.mark.parametrize("weight", EXTREMES, ids=range(len(EXTREMES)))
    def test_extreme_weights_stay_finite(self, fmt: LutFormat, weight: Tensor):
        assert bool(torch.isfinite(fmt.roundtrip(weight, MINMAX)).all())

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [0.0, 0.3, -1e-30, 1e30, -65504.0])
    def test_constants_survive_the_rounding_of_their_scale(self, fmt: LutFormat, value: float):
        weight = torch.full((3, 5), value)
        assert torch.allclose(fmt.roundtrip(weight, MINMAX), weight, rtol=2.0**-8, atol=1e-35)

    @pytest.mark.parametrize("width", range(1, 7))
    @pytest.mark.parametrize("shape", [(8, 64), (16, 320), (4, 2000)], ids=str)
    def test_normal_weights_are_better_off_than_in_a_uniform_format(
        self, width: int, shape: tuple[int, int]
    ):
        weight = normal(*shape) * torch.logspace(-2, 2, shape[0]).unsqueeze(1)
        uniform = parse_weight_format(f"int{width}/channel")
        assert uniform is not None
        searched = (uniform.roundtrip(weight, MSE) - weight).double().square().sum()
        assert error(LutFormat(width), weight) < float(searched)

    @pytest.mark.parametrize("seed", range(3))
    def test_more_bits_are_better(self, seed: int):
        weight = normal(16, 512, seed=seed)
        errors = [error(fmt, weight) for fmt in FORMATS]
        assert errors == sorted(errors, reverse=True)

    def test_no_other_two_levels_of_a_row_do_better_by_more_than_the_rounding_of_scales(self):
        weight = normal(1, 200)
        found = error(LutFormat(1), weight)
        steps = torch.linspace(-2, 2, 101).tolist()
        best = min(
            float(torch.minimum((weight - a).square(), (weight - b).square()).sum())
            for a, b in itertools.combinations(steps, 2)
        )
        assert found <= best * 1.01

    @EVERY_FORMAT
    def test_a_range_search_changes_nothing(self, fmt: LutFormat):
        weight = normal(4, 300)
        searched, plain = fmt.encode(weight, MSE), fmt.encode(weight, MINMAX)
        assert all(torch.equal(searched[name], plain[name]) for name in plain)


class TestRows:
    @EVERY_FORMAT
    def test_rows_of_hugely_different_size_are_all_served(self, fmt: LutFormat):
        sizes = torch.tensor([1e-20, 1e-6, 1.0, 1e15]).unsqueeze(1)
        weight = normal(4, 300) * sizes
        off = fmt.roundtrip(weight, MINMAX).double() - weight.double()
        assert bool((off.square().sum(1) < 0.5 * weight.double().square().sum(1)).all())

    @EVERY_FORMAT
    def test_a_dead_row_stays_next_to_zero_and_its_neighbours_as_they_are(self, fmt: LutFormat):
        weight = normal(4, 300)
        weight[2] = 0
        restored = fmt.roundtrip(weight, MINMAX)
        assert float(restored[2].abs().max()) < 1e-35
        live = [0, 1, 3]
        assert torch.equal(restored[live], fmt.roundtrip(weight[live], MINMAX))

    @EVERY_FORMAT
    def test_a_permutation_of_rows_permutes_what_is_stored(self, fmt: LutFormat):
        weight, order = normal(6, 40), torch.tensor([3, 0, 5, 1, 4, 2])
        assert torch.equal(
            fmt.roundtrip(weight[order], MINMAX), fmt.roundtrip(weight, MINMAX)[order]
        )


class TestIndependence:
    @EVERY_FORMAT
    def test_views_are_encoded_like_copies(self, fmt: LutFormat):
        wide = normal(40, 60)
        for view in (wide[:, :7], wide[:, ::2], wide[::3], wide.t()):
            assert torch.equal(
                fmt.roundtrip(view, MINMAX), fmt.roundtrip(view.contiguous(), MINMAX)
            )

    @EVERY_FORMAT
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_other_floating_types_are_taken_at_their_value(
        self, fmt: LutFormat, dtype: torch.dtype
    ):
        weight = normal(4, 40).bfloat16().to(dtype)
        assert torch.equal(fmt.roundtrip(weight, MINMAX), fmt.roundtrip(weight.float(), MINMAX))

    @EVERY_FORMAT
    def test_a_weight_that_requires_gradients_is_taken(self, fmt: LutFormat):
        tensors = fmt.encode(torch.nn.Parameter(normal(4, 40)), MINMAX)
        assert not fmt.decode(tensors, (4, 40)).requires_grad


class TestDamage:
    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_weight_with_nan_or_infinity_is_refused(self, fmt: LutFormat, value: float):
        weight = normal(3, 5)
        weight[1, 2] = value
        with pytest.raises(FormatError, match="NaN or infinite"):
            fmt.encode(weight, MINMAX)

    @EVERY_FORMAT
    def test_what_was_encoded_passes_the_check(self, fmt: LutFormat):
        for weight in (normal(3, 40), *EXTREMES):
            fmt.check(fmt.encode(weight, MINMAX))

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
    def test_a_scale_that_is_not_positive_fails_it(self, fmt: LutFormat, value: float):
        tensors = fmt.encode(normal(3, 40), MINMAX)
        tensors["scale"][-1] = as_bits(torch.tensor(value, dtype=torch.bfloat16))
        with pytest.raises(FormatError, match="scale holds values that are not positive"):
            fmt.check(tensors)

    @EVERY_FORMAT
    def test_levels_out_of_order_fail_it(self, fmt: LutFormat):
        tensors = fmt.encode(normal(3, 40), MINMAX)
        tensors["book"] = tensors["book"].flip(1)
        with pytest.raises(FormatError, match="book holds levels that are not in ascending"):
            fmt.check(tensors)

    def test_the_lowest_of_8_bits_fails_it(self):
        tensors = LutFormat(2).encode(normal(3, 40), MINMAX)
        tensors["book"][0, 0] = -128
        with pytest.raises(FormatError, match="from -127 to 127"):
            LutFormat(2).check(tensors)


class TestForeignGrids:
    def levels(self, *levels: float, scale: float = 1.0) -> LookupGrid:
        return LookupGrid(torch.tensor([levels]), (2, 3), torch.full((2, 1), scale))

    @pytest.mark.parametrize(
        ("found", "message"),
        [
            (LookupGrid(torch.tensor([[-1.0, 1.0]]), (2, 3)), "with scales"),
            (parse_weight_format("int1/channel").grid(torch.ones(2, 3), MINMAX), "AffineGrid"),
        ],
        ids=["no scale", "affine"],
    )
    def test_grids_of_other_kinds_are_refused(self, found, message: str):
        with pytest.raises(FormatError, match=message):
            LutFormat(1).store(found, torch.zeros(2, 3, dtype=torch.uint8))

    def test_other_counts_of_levels_are_refused(self):
        with pytest.raises(FormatError, match="levels of shape"):
            LutFormat(2).store(self.levels(-1, 1), torch.zeros(2, 3, dtype=torch.uint8))

    def test_levels_between_integers_are_refused(self):
        with pytest.raises(FormatError, match="whole numbers"):
            LutFormat(1).store(self.levels(-1, 0.5), torch.zeros(2, 3, dtype=torch.uint8))

    def test_scales_that_are_not_rounded_are_refused(self):
        with pytest.raises(FormatError, match=r"scales in torch\.bfloat16"):
            LutFormat(1).store(self.levels(-1, 1, scale=1.001), torch.zeros(2, 3).byte())
