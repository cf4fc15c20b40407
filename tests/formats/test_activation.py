import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.formats import ActivationFormat, parse_activation_format

SLACK = 1e-4
WIDTHS = range(2, 9)
FORMATS = [ActivationFormat(w, s, g) for w in WIDTHS for s in (True, False) for g in ("token",)]
EVERY_FORMAT = pytest.mark.parametrize("fmt", FORMATS, ids=str)
inputs = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(
        st.floats(-(2.0**126), 2.0**126, width=32), st.floats(-2, 2, width=32), st.just(0.0)
    ),
).map(torch.from_numpy)


@pytest.mark.parametrize(
    ("granularity", "kind"), [("tensor", "static"), ("step", "per_step"), ("token", "dynamic")]
)
def test_a_granularity_says_where_scales_come_from(granularity: str, kind: str):
    found = parse_activation_format(f"uint6/{granularity}")
    assert found is not None
    assert (found.name, found.width) == (f"uint6/{granularity}", 6)
    kinds = {name: getattr(found, name) for name in ("static", "per_step", "dynamic")}
    assert kinds == {name: name == kind for name in kinds}


def dynamic(fmt: ActivationFormat, x: Tensor, dims: tuple[int, ...] = (-1,)) -> Tensor:
    return fmt.roundtrip(x, *fmt.dynamic_parameters(x, dims))


def static(fmt: ActivationFormat, x: Tensor, low: float, high: float) -> Tensor:
    return fmt.roundtrip(x, *fmt.range_parameters(low, high, x.device))


@given(fmt=st.sampled_from(FORMATS), x=inputs)
def test_every_value_is_within_half_a_step(fmt: ActivationFormat, x: Tensor):
    scale, zero_point = fmt.dynamic_parameters(x, (-1,))
    distance = (fmt.roundtrip(x, scale, zero_point).double() - x.double()).abs()
    assert bool((distance <= scale.double() * (0.5 + SLACK)).all())


@given(fmt=st.sampled_from(FORMATS), x=inputs)
def test_a_calibrated_range_is_within_half_a_step(fmt: ActivationFormat, x: Tensor):
    low, high = float(x.min()), float(x.max())
    scale, zero_point = fmt.range_parameters(low, high, x.device)
    assert scale.shape == zero_point.shape == (1,)
    distance = (fmt.roundtrip(x, scale, zero_point).double() - x.double()).abs()
    assert bool((distance <= scale.double() * (0.5 + SLACK)).all())


@given(fmt=st.sampled_from(FORMATS), x=inputs)
def test_zero_is_exact(fmt: ActivationFormat, x: Tensor):
    x[:, 0] = 0.0
    assert bool((dynamic(fmt, x)[:, 0] == 0).all())
    low, high = float(x.min()), float(x.max())
    assert bool((static(fmt, x, low, high)[:, 0] == 0).all())


@given(fmt=st.sampled_from(FORMATS), x=inputs)
def test_codes_are_whole_and_stay_within_the_limits(fmt: ActivationFormat, x: Tensor):
    codes = fmt.quantize(x, *fmt.dynamic_parameters(x, (-1,)))
    low, high = fmt.limits
    assert bool((codes == codes.round()).all())
    assert bool((codes >= low).all() & (codes <= high).all())


@given(fmt=st.sampled_from(FORMATS), x=inputs)
def test_a_token_does_not_see_the_others(fmt: ActivationFormat, x: Tensor):
    together = dynamic(fmt, x)
    for row in range(len(x)):
        assert torch.equal(together[row : row + 1], dynamic(fmt, x[row : row + 1]))


@EVERY_FORMAT
def test_an_image_does_not_see_the_others(fmt: ActivationFormat):
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    x[1] *= 1000
    together = dynamic(fmt, x, (-3, -2, -1))
    assert torch.equal(together[:1], dynamic(fmt, x[:1], (-3, -2, -1)))


@EVERY_FORMAT
@pytest.mark.parametrize("value", [1.7e38, -1.7e38, 1e-38, -1e-38, 1e-45, 0.0])
def test_constant_tokens_survive(fmt: ActivationFormat, value: float):
    restored = dynamic(fmt, torch.full((2, 5), value))
    assert bool(torch.isfinite(restored).all())
    assert torch.allclose(restored, torch.tensor(value), rtol=1e-5, atol=1e-38)


@EVERY_FORMAT
def test_half_of_float32_on_both_sides_stays_finite(fmt: ActivationFormat):
    half = torch.finfo(torch.float32).max / 2
    restored = dynamic(fmt, torch.tensor([[half, -half, 0.0]]))
    assert bool(torch.isfinite(restored).all())


@EVERY_FORMAT
def test_values_beyond_the_calibrated_range_saturate(fmt: ActivationFormat):
    x = torch.tensor([-1e6, -1.0, 0.0, 2.0, 1e6, math.inf, -math.inf])
    restored = static(fmt, x, -1.0, 2.0)
    low, high = (-2.0 * (fmt.limits[0] / -fmt.limits[1]), 2.0) if fmt.symmetric else (-1.0, 2.0)
    scale = float(fmt.range_parameters(-1.0, 2.0, x.device)[0])
    assert float(restored.min()) == pytest.approx(low, abs=scale / 2)
    assert float(restored.max()) == pytest.approx(high, abs=scale / 2)


@pytest.mark.parametrize(("low", "high"), [(1.0, 5.0), (-5.0, -1.0), (0.0, 0.0), (2.0, 2.0)])
@pytest.mark.parametrize("name", ["uint8/tensor", "int8/tensor", "uint2/tensor"])
def test_a_range_on_one_side_is_widened_to_zero(name: str, low: float, high: float):
    fmt = parse_activation_format(name)
    assert fmt is not None
    x = torch.tensor([low, 0.0, high])
    scale = float(fmt.range_parameters(low, high, x.device)[0])
    assert static(fmt, x, low, high).tolist() == pytest.approx(x.tolist(), abs=scale * 0.501)
    assert static(fmt, x, low, high)[1] == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_asymmetric_formats_spend_no_codes_on_an_empty_side(width: int):
    fmt = ActivationFormat(width, False, "tensor")
    x = torch.linspace(0, 1, 2**width)
    assert torch.allclose(static(fmt, x, 0.0, 1.0), x, atol=1e-6)


@EVERY_FORMAT
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_stay_visible_in_their_token_only(fmt: ActivationFormat, value: float):
    x = torch.ones(2, 3)
    x[0, 1] = value
    restored = dynamic(fmt, x)
    assert not bool(torch.isfinite(restored[0]).all())
    assert bool(torch.isfinite(restored[1]).all())


@EVERY_FORMAT
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_input_keeps_its_dtype_and_itself(fmt: ActivationFormat, dtype: torch.dtype):
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    restored = dynamic(fmt, x)
    assert restored.dtype == dtype
    assert torch.equal(restored, dynamic(fmt, x.float()).to(dtype))
    assert torch.equal(x, before)


@EVERY_FORMAT
def test_no_tokens_are_no_trouble(fmt: ActivationFormat):
    assert dynamic(fmt, torch.empty(0, 5)).shape == (0, 5)
    assert dynamic(fmt, torch.empty(2, 0, 5)).shape == (2, 0, 5)


def test_static_formats_are_those_per_tensor():
    assert ActivationFormat(8, True, "tensor").static
    assert not ActivationFormat(8, True, "token").static


@pytest.mark.parametrize("width", [0, 1, 9, 16])
def test_widths_are_two_to_eight(width: int):
    with pytest.raises(FormatError, match=f"bits is {width}"):
        ActivationFormat(width, True, "token")
