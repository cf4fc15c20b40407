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
    CodebookFormat,
    as_bits,
    chunks,
    grid,
    parse_weight_format,
)
from tests.formats.strategies import SHAPES, WIDTHS, normal, weights

FORMATS = [CodebookFormat(width, g) for width in WIDTHS for g in ("tensor", "channel")]
EVERY_FORMAT = pytest.mark.parametrize("fmt", FORMATS, ids=str)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)
ANY_FORMAT = st.sampled_from(FORMATS)

HUGE = torch.finfo(torch.float32).max

#: Half of bfloat16's spacing: 8 bits of significand, and its smallest number.
ROUNDING, SMALLEST = 2.0**-8, 2.0**-133

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
    return float((fmt.roundtrip(weight).double() - weight.double()).square().sum())


class TestStorage:
    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_encoding_matches_the_layout(self, fmt: CodebookFormat, shape: tuple[int, ...]):
        tensors = fmt.encode(normal(*shape))
        layout = fmt.layout(shape)
        assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
            name: (spec.shape, spec.dtype) for name, spec in layout.items()
        }
        assert fmt.stored_bytes(shape) == sum(
            t.numel() * t.element_size() for t in tensors.values()
        )

    def test_levels_cost_sixteen_bits_each(self):
        codes = 10 * 64 * 4 // 8
        assert CodebookFormat(4, "channel").stored_bytes((10, 64)) == codes + 10 * 16 * 2
        assert CodebookFormat(4, "tensor").stored_bytes((10, 64)) == codes + 16 * 2

    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_decoding_gives_float32_of_the_shape(self, fmt: CodebookFormat, shape: tuple[int, ...]):
        restored = fmt.roundtrip(normal(*shape))
        assert (restored.shape, restored.dtype) == (shape, torch.float32)

    @EVERY_FORMAT
    def test_a_weight_is_the_level_of_its_code(self, fmt: CodebookFormat):
        shape = (9, 5, 3, 3)
        tensors = fmt.encode(normal(*shape))
        codes, levels = fmt.codes(tensors, shape), fmt.levels(tensors)
        assert (codes.dtype, levels.dtype) == (torch.uint8, torch.float32)
        expected = levels.expand(9, -1).gather(1, codes.long()).view(shape)
        assert torch.equal(fmt.decode(tensors, shape), expected)

    @EVERY_FORMAT
    def test_levels_ascend(self, fmt: CodebookFormat):
        levels = fmt.levels(fmt.encode(normal(9, 700)))
        assert levels.shape == (9 if fmt.granularity == "channel" else 1, 2**fmt.width)
        assert bool((levels.diff(dim=1) >= 0).all())

    @EVERY_FORMAT
    def test_large_weights_are_taken_piece_by_piece(
        self, fmt: CodebookFormat, monkeypatch: pytest.MonkeyPatch
    ):
        weight = normal(7, 20)
        whole = fmt.encode(weight)
        restored = fmt.decode(whole, (7, 20))
        monkeypatch.setattr(chunks, "CHUNK", 50)
        monkeypatch.setattr(grid, "PIECE", 50)
        pieces = fmt.encode(weight)
        assert all(torch.equal(pieces[name], whole[name]) for name in whole)
        assert torch.equal(fmt.decode(whole, (7, 20)), restored)

    @EVERY_FORMAT
    @pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0)], ids=str)
    def test_vectors_and_empty_weights_are_refused(
        self, fmt: CodebookFormat, shape: tuple[int, ...]
    ):
        for call in (lambda: fmt.encode(torch.ones(shape)), lambda: fmt.layout(shape)):
            with pytest.raises(FormatError, match="cannot be quantized"):
                call()

    @pytest.mark.parametrize("width", [-1, 0, 9])
    def test_widths_are_one_to_eight(self, width: int):
        with pytest.raises(FormatError, match=f"bits is {width}"):
            CodebookFormat(width)


class TestAccuracy:
    @given(fmt=ANY_FORMAT, weight=weights())
    def test_every_weight_takes_its_nearest_level(self, fmt: CodebookFormat, weight: Tensor):
        tensors = fmt.encode(weight)
        levels = fmt.levels(tensors).double().expand(len(weight), -1)
        distance = (fmt.decode(tensors, tuple(weight.shape)).double() - weight.double()).abs()
        least = (weight.double().unsqueeze(2) - levels.unsqueeze(1)).abs().amin(2)
        # Where two are as near as float32 can tell, either will do.
        slack = 1e-6 * levels.abs().amax(1, keepdim=True) + 1e-44
        assert bool((distance <= least + slack).all())

    @given(fmt=st.sampled_from([f for f in FORMATS if f.width >= 6]), weight=weights(columns=16))
    def test_few_distinct_weights_are_kept_to_the_rounding_of_levels(
        self, fmt: CodebookFormat, weight: Tensor
    ):
        distance = (fmt.roundtrip(weight).double() - weight.double()).abs()
        assert bool((distance <= ROUNDING * weight.double().abs() + SMALLEST).all())

    @EVERY_FORMAT
    @pytest.mark.parametrize("weight", EXTREMES, ids=range(len(EXTREMES)))
    def test_extreme_weights_stay_finite_and_in_range(self, fmt: CodebookFormat, weight: Tensor):
        restored = fmt.roundtrip(weight).double()
        slack = ROUNDING * weight.double().abs().max() + SMALLEST
        assert bool(torch.isfinite(restored).all())
        assert bool((restored >= weight.min() - slack).all())
        assert bool((restored <= weight.max() + slack).all())

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [0.0, 0.3, -1e-38, 1e30, HUGE, -65504.0])
    def test_constants_survive(self, fmt: CodebookFormat, value: float):
        weight = torch.full((3, 5), value)
        assert torch.allclose(fmt.roundtrip(weight), weight, rtol=ROUNDING, atol=SMALLEST)

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("shape", [(8, 64), (16, 320), (4, 2000)], ids=str)
    def test_normal_weights_are_better_off_than_in_a_uniform_format(
        self, granularity: str, width: int, shape: tuple[int, int]
    ):
        weight = normal(*shape)
        found = error(parse_weight_format(f"kmeans{width}/{granularity}"), weight)
        for kind in ("int", "uint"):
            uniform = parse_weight_format(f"{kind}{width}/{granularity}")
            assert found <= error(uniform, weight)

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    @pytest.mark.parametrize("seed", range(3))
    def test_more_bits_are_better(self, granularity: str, seed: int):
        weight = normal(16, 512, seed=seed)
        errors = [error(CodebookFormat(width, granularity), weight) for width in WIDTHS]
        assert errors == sorted(errors, reverse=True)

    def test_a_codebook_per_channel_is_better_than_one(self):
        weight = normal(16, 512) * torch.logspace(-2, 0, 16).unsqueeze(1)
        assert error(CodebookFormat(4, "channel"), weight) < error(
            CodebookFormat(4, "tensor"), weight
        )

    @EVERY_FORMAT
    def test_a_range_search_changes_nothing(self, fmt: CodebookFormat):
        weight = normal(4, 300)
        searched, plain = fmt.encode(weight, MSE), fmt.encode(weight, MINMAX)
        assert all(torch.equal(searched[name], plain[name]) for name in plain)

    @given(fmt=ANY_FORMAT, weight=weights())
    def test_quantizing_what_was_quantized_changes_nothing(
        self, fmt: CodebookFormat, weight: Tensor
    ):
        once = fmt.roundtrip(weight)
        assert torch.equal(fmt.roundtrip(once), once)


class TestIndependence:
    @pytest.mark.parametrize("factor", [1e-30, 0.0, 1e30])
    @pytest.mark.parametrize("width", WIDTHS)
    def test_a_channel_is_encoded_alike_whatever_its_neighbours_are(
        self, width: int, factor: float
    ):
        fmt, weight = CodebookFormat(width), normal(2, 300)
        alone = fmt.roundtrip(weight[:1])
        weight[1] *= factor
        assert torch.equal(fmt.roundtrip(weight)[:1], alone)

    @EVERY_FORMAT
    def test_weight_and_stored_tensors_are_left_alone(self, fmt: CodebookFormat):
        weight = normal(4, 40)
        kept = weight.clone()
        tensors = fmt.encode(weight)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        fmt.decode(tensors, (4, 40)).zero_()
        assert torch.equal(weight, kept)
        assert all(torch.equal(tensors[name], before[name]) for name in tensors)

    @EVERY_FORMAT
    def test_memory_order_does_not_matter(self, fmt: CodebookFormat):
        weight = normal(4, 6, 3, 3)
        plain = fmt.roundtrip(weight)
        assert torch.equal(fmt.roundtrip(weight.to(memory_format=torch.channels_last)), plain)

    @EVERY_FORMAT
    def test_views_are_encoded_like_copies(self, fmt: CodebookFormat):
        wide = normal(40, 60)
        for view in (wide[:, :7], wide[:, ::2], wide[::3], wide.t()):
            assert torch.equal(fmt.roundtrip(view), fmt.roundtrip(view.contiguous()))

    @EVERY_FORMAT
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_other_floating_types_are_taken_at_their_value(
        self, fmt: CodebookFormat, dtype: torch.dtype
    ):
        weight = normal(4, 40).bfloat16().to(dtype)
        assert torch.equal(fmt.roundtrip(weight), fmt.roundtrip(weight.float()))

    @EVERY_FORMAT
    def test_a_weight_that_requires_gradients_is_taken(self, fmt: CodebookFormat):
        tensors = fmt.encode(torch.nn.Parameter(normal(4, 40)))
        assert not fmt.decode(tensors, (4, 40)).requires_grad


class TestDamage:
    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_weight_with_nan_or_infinity_is_refused(self, fmt: CodebookFormat, value: float):
        weight = normal(3, 5)
        weight[1, 2] = value
        with pytest.raises(FormatError, match="NaN or infinite"):
            fmt.encode(weight)

    @EVERY_FORMAT
    def test_what_was_encoded_passes_the_check(self, fmt: CodebookFormat):
        for weight in (normal(3, 40), torch.zeros(3, 40), torch.full((3, 40), HUGE)):
            fmt.check(fmt.encode(weight))

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_level_that_is_not_finite_fails_it(self, fmt: CodebookFormat, value: float):
        tensors = fmt.encode(normal(3, 40))
        tensors["codebook"][-1, -1] = as_bits(torch.tensor(value, dtype=torch.bfloat16))
        with pytest.raises(FormatError, match="codebook holds values that are not finite"):
            fmt.check(tensors)

    @EVERY_FORMAT
    def test_levels_out_of_order_fail_it(self, fmt: CodebookFormat):
        tensors = fmt.encode(normal(3, 40))
        tensors["codebook"] = tensors["codebook"].flip(1)
        with pytest.raises(FormatError, match="codebook holds levels that are not in ascending"):
            fmt.check(tensors)
