import math
from fractions import Fraction
from hashlib import sha256

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import MINMAX, MSE, UniformFormat, as_bits, parse_weight_format
from tests.formats.strategies import (
    NAMES,
    SHAPES,
    WIDTHS,
    formats,
    normal,
    parsed,
    step,
    unpacked,
    weights,
)

#: float32 rounding of a weight counted in steps of its scale, with 255 steps at most.
SLACK = 1e-4

#: Half of float32's range. Beyond it, the end of a range may be rounded up to infinity.
HUGE = torch.finfo(torch.float32).max / 2

EVERY_FORMAT = pytest.mark.parametrize("fmt", list(map(parsed, NAMES)), ids=str)
EVERY_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=str)


def assert_within_half_a_step(fmt: UniformFormat, weight: Tensor) -> None:
    tensors = fmt.encode(weight, MINMAX)
    restored = fmt.decode(tensors, tuple(weight.shape))
    distance = (restored.double() - weight.double()).abs()
    bound = step(fmt, tensors, tuple(weight.shape)).double() * (0.5 + SLACK)
    assert bool((distance <= bound).all())


class TestStorage:
    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_encoding_matches_the_layout(self, fmt: UniformFormat, shape: tuple[int, ...]):
        tensors = fmt.encode(normal(*shape), MINMAX)
        layout = fmt.layout(shape)
        assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
            name: (spec.shape, spec.dtype) for name, spec in layout.items()
        }

    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_stored_bytes_are_the_bytes_of_the_tensors(
        self, fmt: UniformFormat, shape: tuple[int, ...]
    ):
        tensors = fmt.encode(normal(*shape), MINMAX).values()
        assert fmt.stored_bytes(shape) == sum(t.numel() * t.element_size() for t in tensors)

    @EVERY_FORMAT
    def test_everything_stored_is_an_integer(self, fmt: UniformFormat):
        assert not any(t.is_floating_point() for t in fmt.encode(normal(3, 40), MINMAX).values())

    @EVERY_FORMAT
    @EVERY_SHAPE
    def test_decoding_gives_float32_of_the_shape(self, fmt: UniformFormat, shape: tuple[int, ...]):
        restored = fmt.roundtrip(normal(*shape), MINMAX)
        assert (restored.shape, restored.dtype) == (shape, torch.float32)

    @EVERY_FORMAT
    def test_codes_are_unsigned_and_fit_the_width(self, fmt: UniformFormat):
        codes = unpacked(fmt, fmt.encode(normal(9, 50), MINMAX), (9, 50))
        assert (codes.shape, codes.dtype) == ((9, 50), torch.uint8)
        assert int(codes.max()) < 2**fmt.width

    def test_scales_are_one_per_tensor_channel_or_group(self):
        shape = (6, 5, 3, 3)
        assert parsed("int4/tensor").scale_shape(shape) == (1, 1)
        assert parsed("int4/channel").scale_shape(shape) == (6, 1)
        assert parsed("int4/group32").scale_shape(shape) == (6, 2)
        assert parsed("int4/group64").scale_shape(shape) == (6, 1)

    def test_scales_cost_what_they_say(self):
        shape = (10, 64)
        codes = 10 * 64 * 4 // 8
        assert parsed("int4/channel").stored_bytes(shape) == codes + 10 * 2
        assert parsed("uint4/channel").stored_bytes(shape) == codes + 10 * (2 + 1)
        assert parsed("int4/channel/float32").stored_bytes(shape) == codes + 10 * 4
        assert parsed("uint4/channel/float32").stored_bytes(shape) == codes + 10 * (4 + 1)
        assert parsed("int4/group32").stored_bytes(shape) == codes + 10 * 2 * 2
        assert parsed("uint4/tensor").stored_bytes(shape) == codes + 4 + 1

    def test_a_group_far_wider_than_the_row_costs_nothing(self):
        wide, exact = parsed("int4/group999999999"), parsed("int4/group16")
        weight = normal(3, 16)
        assert wide.stored_bytes((3, 16)) == exact.stored_bytes((3, 16))
        assert torch.equal(wide.roundtrip(weight, MINMAX), exact.roundtrip(weight, MINMAX))

    @EVERY_FORMAT
    @pytest.mark.parametrize("shape", [(), (4,), (0, 4), (4, 0)], ids=str)
    def test_vectors_and_empty_weights_are_refused(
        self, fmt: UniformFormat, shape: tuple[int, ...]
    ):
        for call in (lambda: fmt.encode(torch.ones(shape), MINMAX), lambda: fmt.layout(shape)):
            with pytest.raises(FormatError, match="cannot be quantized"):
                call()


class TestParameters:
    @pytest.mark.parametrize("width", [-1, 0, 9])
    def test_widths_are_one_to_eight(self, width: int):
        with pytest.raises(FormatError, match=f"bits is {width}"):
            UniformFormat(width)

    @pytest.mark.parametrize("size", [0, 1, -4])
    def test_a_group_has_two_weights_or_more(self, size: int):
        with pytest.raises(FormatError, match=f"group_size is {size}"):
            UniformFormat(4, True, "group", size)

    @pytest.mark.parametrize("arguments", [("group", None), ("channel", 32), ("tensor", 8)])
    def test_a_group_size_goes_with_groups_only(self, arguments: tuple[str, int | None]):
        with pytest.raises(FormatError, match="group_size goes with"):
            UniformFormat(4, True, *arguments)


class TestAccuracy:
    @given(fmt=formats(), weight=weights())
    def test_every_weight_is_within_half_a_step(self, fmt: UniformFormat, weight: Tensor):
        # One symmetric bit has no zero and no range: see the mean magnitude below.
        assume(fmt.width > 1 or not fmt.symmetric)
        assert_within_half_a_step(fmt, weight)

    @pytest.mark.parametrize("name", [n for n in NAMES if "int1" not in n])
    @pytest.mark.parametrize(
        "weight",
        [
            torch.full((2, 9), HUGE),
            torch.full((2, 9), -HUGE),
            torch.full((2, 9), 1e-38),
            torch.full((2, 9), 1e-45),
            torch.tensor([[-HUGE, HUGE, 0.0], [1.0, -1.0, 1e-38]]),
            torch.tensor([[HUGE, 1e38], [1e-38, -2e-38]]),
            torch.arange(1.0, 41).view(2, 20),
            -torch.arange(1.0, 41).view(2, 20),
            torch.tensor([[5.0, 5.0, 5.001]]),
        ],
        ids=[
            *("huge", "negative-huge", "tiny", "smallest", "both-ends"),
            *("mixed", "positive", "negative", "narrow"),
        ],
    )
    def test_extreme_weights_are_within_half_a_step(self, name: str, weight: Tensor):
        assert_within_half_a_step(parsed(name), weight)

    @pytest.mark.parametrize("width", range(2, 9))
    @pytest.mark.parametrize("seed", range(20))
    def test_coarse_scales_of_groups_do_not_clip_the_range(self, width: int, seed: int):
        for kind in ("int", "uint"):
            assert_within_half_a_step(parsed(f"{kind}{width}/group32"), normal(8, 64, seed=seed))

    @given(fmt=formats(), weight=weights())
    def test_zero_stays_exactly_zero(self, fmt: UniformFormat, weight: Tensor):
        assume(fmt.width > 1 or not fmt.symmetric)
        weight[:, ::3] = 0.0
        assert bool((fmt.roundtrip(weight, MINMAX)[:, ::3] == 0).all())

    @EVERY_FORMAT
    def test_decoded_weights_are_finite_whatever_comes_in(self, fmt: UniformFormat):
        for weight in (torch.tensor([[HUGE, -HUGE], [1e-45, 0.0]]), torch.zeros(2, 3)):
            assert bool(torch.isfinite(fmt.roundtrip(weight, MINMAX)).all())
            assert bool(torch.isfinite(fmt.roundtrip(weight, MSE)).all())

    @pytest.mark.parametrize("width", WIDTHS)
    def test_asymmetric_per_channel_by_hand(self, width: int):
        weight = torch.tensor([[-1.0, 0.0, 3.0]])
        levels = 2**width - 1
        zero_point = round(Fraction(levels, 4))
        scale = 4 / levels
        fmt = UniformFormat(width, symmetric=False, wide_scale=True)
        tensors = fmt.encode(weight, MINMAX)
        assert tensors["zero_point"].item() == zero_point
        assert tensors["scale"].item() == as_bits(torch.tensor(scale)).item()
        expected = [
            scale * (min(max(round(w / scale) + zero_point, 0), levels) - zero_point)
            for w in (-1.0, 0.0, 3.0)
        ]
        assert fmt.decode(tensors, (1, 3)).tolist()[0] == pytest.approx(expected)

    @pytest.mark.parametrize("width", range(2, 9))
    def test_symmetric_formats_keep_the_largest_weight(self, width: int):
        top = 2 ** (width - 1) - 1
        weight = torch.arange(-top, top + 1).float().view(1, -1)
        assert torch.equal(UniformFormat(width).roundtrip(weight, MINMAX), weight)

    @given(weight=weights(), name=st.sampled_from([n for n in NAMES if n.startswith("int1/")]))
    def test_one_symmetric_bit_is_the_sign_times_the_mean_magnitude(
        self, weight: Tensor, name: str
    ):
        fmt = parsed(name)
        assume(fmt.granularity != "group")
        dims = (0, 1) if fmt.granularity == "tensor" else (1,)
        mean = weight.double().abs().mean(dims, keepdim=True)
        restored = fmt.roundtrip(weight, MINMAX).double()
        rounding = 1e-5 if fmt.scale_dtype == torch.float32 else 2.0**-8
        assert torch.allclose(restored.abs(), mean, rtol=rounding, atol=1e-38)
        clear = weight.double().abs() > 1e-30 * mean
        assert bool(((restored > 0) == (weight > 0))[clear].all())

    @pytest.mark.parametrize("columns", [1, 31, 33, 63, 65])
    def test_padding_of_the_last_group_does_not_count(self, columns: int):
        fmt = UniformFormat(1, True, "group", 32)
        weight = torch.ones(2, columns)
        weight[:, ::2] = -1.0
        assert torch.equal(fmt.roundtrip(weight, MINMAX), weight)

    @pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("group8")])
    def test_a_ragged_last_group_is_encoded_as_if_alone(self, name: str):
        fmt, weight = parsed(name), normal(3, 19)
        assert torch.equal(
            fmt.roundtrip(weight, MINMAX)[:, 16:], fmt.roundtrip(weight[:, 16:], MINMAX)
        )


class TestIndependence:
    @pytest.mark.parametrize("name", [n for n in NAMES if not n.endswith("tensor")])
    def test_a_dead_channel_disturbs_no_other(self, name: str):
        fmt = parsed(name)
        weight = normal(4, 40)
        alive = fmt.roundtrip(weight, MINMAX)
        weight[2] = 0.0
        restored = fmt.roundtrip(weight, MINMAX)
        others = [0, 1, 3]
        assert torch.equal(restored[others], alive[others])
        assert float(restored[2].abs().max()) < 1e-37

    @pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("channel")])
    @pytest.mark.parametrize("factor", [1e-30, 1e30])
    def test_a_channel_is_encoded_alike_at_any_scale_of_its_neighbours(
        self, name: str, factor: float
    ):
        fmt = parsed(name)
        weight = normal(2, 24)
        alone = fmt.roundtrip(weight[:1], MINMAX)
        weight[1] *= factor
        assert torch.equal(fmt.roundtrip(weight, MINMAX)[:1], alone)

    @EVERY_FORMAT
    def test_the_weight_itself_is_left_alone(self, fmt: UniformFormat):
        weight = normal(4, 40)
        before = weight.clone()
        fmt.decode(fmt.encode(weight, MINMAX), (4, 40))
        assert torch.equal(weight, before)

    @EVERY_FORMAT
    def test_decoding_leaves_the_stored_tensors_alone(self, fmt: UniformFormat):
        tensors = fmt.encode(normal(4, 40), MINMAX)
        before = {name: tensor.clone() for name, tensor in tensors.items()}
        first, second = fmt.decode(tensors, (4, 40)), fmt.decode(tensors, (4, 40))
        assert torch.equal(first, second)
        assert all(torch.equal(tensors[name], before[name]) for name in tensors)

    @EVERY_FORMAT
    def test_memory_order_does_not_matter(self, fmt: UniformFormat):
        weight = normal(4, 6, 3, 3)
        plain = fmt.roundtrip(weight, MINMAX)
        assert torch.equal(
            fmt.roundtrip(weight.to(memory_format=torch.channels_last), MINMAX), plain
        )

    @EVERY_FORMAT
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
    def test_other_floating_types_are_taken_at_their_value(
        self, fmt: UniformFormat, dtype: torch.dtype
    ):
        weight = normal(4, 40).bfloat16().to(dtype)
        assert torch.equal(fmt.roundtrip(weight, MINMAX), fmt.roundtrip(weight.float(), MINMAX))

    @EVERY_FORMAT
    def test_a_weight_that_requires_gradients_is_taken(self, fmt: UniformFormat):
        tensors = fmt.encode(torch.nn.Parameter(normal(4, 40)), MINMAX)
        assert not fmt.decode(tensors, (4, 40)).requires_grad


class TestRepetition:
    """Quantizing what was quantized already changes nothing.

    Symmetric: always. Asymmetric: where the codes reach both ends of their range; rounding of the
    zero point or of a bfloat16 scale may leave one end unused, and the range then shrinks.
    """

    @given(fmt=formats(symmetric=(True,)), weight=weights())
    def test_symmetric(self, fmt: UniformFormat, weight: Tensor):
        once = fmt.roundtrip(weight, MINMAX)
        assert torch.allclose(fmt.roundtrip(once, MINMAX), once, rtol=1e-5, atol=1e-37)

    @given(fmt=formats(symmetric=(False,)), weight=weights(columns=4))
    def test_asymmetric_where_both_ends_are_used(self, fmt: UniformFormat, weight: Tensor):
        codes = unpacked(fmt, fmt.encode(weight, MINMAX), tuple(weight.shape))
        used = codes if fmt.granularity != "tensor" else codes.reshape(1, -1)
        assume(bool((used.amin(1) == 0).all() and (used.amax(1) == 2**fmt.width - 1).all()))
        once = fmt.roundtrip(weight, MINMAX)
        assert torch.allclose(fmt.roundtrip(once, MINMAX), once, rtol=1e-4, atol=1e-37)


class TestDamage:
    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
    def test_a_weight_with_nan_or_infinity_is_refused(
        self, fmt: UniformFormat, value: float, dtype: torch.dtype
    ):
        weight = normal(3, 5).to(dtype)
        weight[1, 2] = value
        with pytest.raises(FormatError, match="NaN or infinite"):
            fmt.encode(weight, MINMAX)

    @EVERY_FORMAT
    def test_what_was_encoded_passes_the_check(self, fmt: UniformFormat):
        for weight in (normal(3, 40), torch.zeros(3, 40), torch.full((3, 40), HUGE)):
            fmt.check(fmt.encode(weight, MINMAX))

    @EVERY_FORMAT
    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
    def test_a_scale_that_is_not_positive_and_finite_fails_it(
        self, fmt: UniformFormat, value: float
    ):
        tensors = fmt.encode(normal(3, 40), MINMAX)
        bad = as_bits(torch.tensor(value, dtype=fmt.scale_dtype))
        tensors["scale"][-1, -1] = bad
        with pytest.raises(FormatError, match="scale"):
            fmt.check(tensors)

    @pytest.mark.parametrize("width", range(1, 8))
    def test_a_zero_point_that_is_no_code_fails_it(self, width: int):
        fmt = UniformFormat(width, symmetric=False)
        tensors = fmt.encode(normal(3, 40), MINMAX)
        tensors["zero_point"][1] = 2**width
        with pytest.raises(FormatError, match="zero_point"):
            fmt.check(tensors)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("int1/channel/float32", "684a6c26812af63a"),
        ("int3/channel/float32", "7c93d94052b8dc4e"),
        ("uint4/channel/float32", "26f2a68e61de3ec4"),
        ("int8/channel/float32", "a6fd52aa53e62a10"),
        ("mixed/int2:3,int5:4/float32", "6a796046755ac575"),
    ],
)
def test_float32_scales_per_channel_have_the_bytes_they_had_in_plans_of_version_2(
    name: str, digest: str
):
    places = torch.linspace(-3, 5, 7 * 40, dtype=torch.float64).view(7, 40)
    weight = places.sin() * torch.logspace(-2, 1, 7, dtype=torch.float64).unsqueeze(1)
    fmt, found = parse_weight_format(name), sha256()
    assert fmt is not None
    for key, tensor in fmt.encode(weight.float(), MSE).items():
        found.update(key.encode() + tensor.numpy().tobytes())
    assert found.hexdigest()[:16] == digest
