"""Convolutions by geometry, against float64, among them those that oneDNN computes wrongly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from mezzotint.runtime import QuantConv2d, convolution
from mezzotint.runtime.cpu import native, units
from mezzotint.runtime.geometry import ConvGeometry
from tests.fuzzing import examples
from tests.runtime.cpu.conftest import prefer_onednn, prefer_own_products
from tests.runtime.layers import noise, packed


@dataclass(frozen=True)
class Case:
    """A convolution, and the height and width of its input."""

    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    size: tuple[int, int] = (7, 6)

    def layer(self) -> nn.Conv2d:
        torch.manual_seed(0)
        return nn.Conv2d(
            self.channels, self.outputs, self.kernel, self.stride, self.padding, self.dilation,
            self.groups,
        )  # fmt: skip

    def input(self, dtype: torch.dtype) -> Tensor:
        return noise(2, self.channels, *self.size).to(dtype)


#: Each was seen to give a wrong output, or to end the process, on a processor with VNNI.
WRONG_BY_ONEDNN = {
    "one-tap-in-padding": Case(64, 33, (1, 1), (1, 2), (2, 1), (1, 3)),
    "column-in-padding": Case(8, 1, (3, 1), (1, 2), (1, 1), (2, 2), size=(5, 1)),
    "wide-padding": Case(2, 32, (2, 5), (2, 1), (3, 4), groups=2, size=(5, 6)),
    "taps-around-the-image": Case(3, 1, (3, 2), (1, 1), (1, 1), (1, 3), size=(5, 2)),
    "wide-groups": Case(96, 34, (3, 3), padding=(1, 1), groups=2),
    "unequal-strides-by-depth": Case(64, 128, (3, 3), (1, 2), (1, 1), groups=64, size=(3, 2)),
    "unequal-strides": Case(1, 33, (1, 5), (1, 2), (0, 1), size=(10, 4)),
}
USUAL = {
    "pointwise": Case(16, 24, (1, 1)),
    "padded": Case(16, 24, (3, 3), padding=(1, 1)),
    "strided": Case(16, 24, (3, 3), (2, 2), (1, 1)),
    "dilated": Case(16, 24, (3, 3), padding=(2, 2), dilation=(2, 2)),
    "depthwise": Case(16, 16, (3, 3), padding=(1, 1), groups=16),
    "grouped": Case(16, 24, (3, 3), padding=(1, 1), groups=4),
    "one-row": Case(16, 24, (1, 3), padding=(0, 1)),
}
EVERY = WRONG_BY_ONEDNN | USUAL


@pytest.fixture(params=["own", "onednn", "torch"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ways to multiply codes: the package's C, oneDNN with VNNI, or oneDNN without our C."""
    if request.param == "own":
        prefer_own_products(monkeypatch)
    if request.param == "onednn":
        prefer_onednn(monkeypatch)
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
        monkeypatch.setattr(units, "unit", lambda: None)
    return str(request.param)


def expected(layer: QuantConv2d, x: Tensor) -> Tensor:
    """The output in float64, which oneDNN does not compute."""
    bias = None if layer.bias is None else layer.bias.double()
    weight = layer.dequantized_weight(torch.float64)
    rounded = layer.round_input(x.float()).double()
    return functional.conv2d(rounded, weight, bias, **layer.attributes)


def assert_close(found: Tensor, right: Tensor) -> None:
    tolerance = 0.02 if found.dtype == torch.bfloat16 else 1e-4
    assert found.shape == right.shape
    assert bool(((found.double() - right).abs() <= tolerance * right.abs().max() + 1e-6).all())


@pytest.mark.parametrize("case", EVERY.values(), ids=EVERY.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("weight", "activation"),
    [("int8/channel", "float"), ("int8/channel", "int8/token"), ("uint4/channel", "uint8/tensor")],
    ids=["floating", "eight-bits", "four-bits"],
)
@pytest.mark.usefixtures("products")
def test_every_geometry_is_right(case: Case, dtype: torch.dtype, weight: str, activation: str):
    layer = packed(case.layer(), weight, activation)
    assert isinstance(layer, QuantConv2d)
    x = case.input(dtype)
    for _ in range(2):
        assert_close(layer(x), expected(layer, x))


@pytest.mark.parametrize("case", EVERY.values(), ids=EVERY.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reference_is_right_where_torch_is_not(case: Case, dtype: torch.dtype):
    layer = packed(case.layer(), "int8/channel", "float")
    x = case.input(dtype).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert isinstance(layer, QuantConv2d)
    assert_close(y.detach(), expected(layer, x.detach()))
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    case = Case(
        channels=groups * draw(st.sampled_from([1, 3, 8, 17, 40])),
        outputs=groups * draw(st.sampled_from([1, 4, 16, 33])),
        kernel=draw(st.tuples(st.integers(1, 4), st.integers(1, 5))),
        stride=draw(pairs),
        padding=draw(st.tuples(st.integers(0, 4), st.integers(0, 4))),
        dilation=draw(pairs),
        groups=groups,
        size=draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
    )
    geometry = ConvGeometry.of(vars(case), case.kernel)
    assume(min(geometry.output_size(*case.size)) > 0)
    return case


@examples(120)
@given(
    case=cases(),
    weight=st.sampled_from(["int8/channel", "uint8/tensor", "int4/channel", "uint3/channel"]),
    activation=st.sampled_from(["float", "int8/token", "uint8/tensor"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_any_geometry_is_right(case: Case, weight: str, activation: str, dtype: torch.dtype):
    layer = packed(case.layer(), weight, activation)
    assert isinstance(layer, QuantConv2d)
    x = case.input(dtype)
    assert_close(layer(x), expected(layer, x))


@pytest.mark.parametrize("case", WRONG_BY_ONEDNN.values(), ids=WRONG_BY_ONEDNN.keys())
def test_the_geometries_that_fail_are_known(case: Case):
    geometry = ConvGeometry.of(vars(case), case.kernel)
    channels = case.channels // case.groups
    assert "oneDNN is wrong" in str(convolution.onednn_hazard(geometry, channels, case.size))


@pytest.mark.parametrize("case", USUAL.values(), ids=USUAL.keys())
def test_the_usual_geometries_are_trusted(case: Case):
    geometry = ConvGeometry.of(vars(case), case.kernel)
    assert convolution.onednn_hazard(geometry, case.channels // case.groups, case.size) is None


def test_a_refused_geometry_says_why(monkeypatch: pytest.MonkeyPatch):
    prefer_onednn(monkeypatch)
    layer = packed(WRONG_BY_ONEDNN["wide-groups"].layer(), "int8/channel", "int8/token")
    assert layer.selection.kernel.name == "cpu-int8"
    assert "groups of more than 32 channels" in str(layer.selection.reason)


@pytest.fixture
def nothing_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_checked", set())
    monkeypatch.setattr(convolution, "_mistrusted", {})


@pytest.mark.usefixtures("nothing_checked")
class TestTheFirstCall:
    """The first output of a geometry is compared with products."""

    CASE = USUAL["padded"]

    @pytest.mark.parametrize("groups", [1, 2])
    def test_a_wrong_integer_product_is_replaced_and_refused(
        self, groups: int, monkeypatch: pytest.MonkeyPatch
    ):
        prefer_onednn(monkeypatch)
        case = replace(self.CASE, groups=groups)
        layer = packed(case.layer(), "int8/channel", "int8/token")
        assert isinstance(layer, QuantConv2d)
        codes = layer.get_buffer("weight_codes").clone()
        assert layer.selection.kernel.name == "cpu-int8-onednn"
        x, right = case.input(torch.float32), expected(layer, case.input(torch.float32))
        conv = torch.ops.onednn.qconv_pointwise
        monkeypatch.setattr(torch.ops.onednn, "qconv_pointwise", lambda *args: conv(*args) + 1)
        for _ in range(2):
            assert_close(layer(x), right)
        assert layer.selection.kernel.name == "cpu-int8"
        other = packed(case.layer(), "int8/channel", "int8/token")
        assert other.selection.kernel.name == "cpu-int8"
        assert torch.equal(layer.weight_tensors()["codes"], codes)
        assert "wrong output for this geometry" in str(layer.selection.reason)

    def test_a_wrong_float_convolution_is_replaced(self, monkeypatch: pytest.MonkeyPatch):
        layer = packed(self.CASE.layer(), "int4/channel", "float")
        assert isinstance(layer, QuantConv2d)
        x = self.CASE.input(torch.float32)
        right = expected(layer, x)
        conv2d = functional.conv2d
        with monkeypatch.context() as patch:
            patch.setattr(functional, "conv2d", lambda *args: conv2d(*args) + 1)
            assert_close(layer(x), right)
            assert_close(layer(x), right)

    def test_it_is_looked_at_once(self, monkeypatch: pytest.MonkeyPatch):
        layer = packed(self.CASE.layer(), "int4/channel", "float")
        x = self.CASE.input(torch.float32)
        layer(x)
        monkeypatch.setattr(convolution, "is_right", None)
        layer(x)

    def test_what_is_not_a_number_proves_nothing(self):
        layer = packed(self.CASE.layer(), "int4/channel", "float")
        x = self.CASE.input(torch.float32)
        layer(torch.full_like(x, torch.nan))
        assert not convolution._mistrusted
        assert not convolution._checked


@pytest.mark.parametrize("case", WRONG_BY_ONEDNN.values(), ids=WRONG_BY_ONEDNN)
@pytest.mark.parametrize("choice", ["int8/token", "float"])
def test_no_image_gives_no_image(case: Case, choice: str):
    layer, x = case.layer(), case.input(torch.float32)[:0]
    y = packed(layer, weight="int8/channel", activation=choice)(x)
    assert y.shape == layer(x).shape
    assert y.dtype == x.dtype
