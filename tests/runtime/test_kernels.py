import gc
import weakref
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.runtime import (
    Conv2d,
    ConvGeometry,
    InputQuantizer,
    Kernel,
    Linear,
    Operation,
    PackedWeight,
    Prepared,
    Request,
    kernels,
    register_kernel,
    registered_kernels,
    select_kernel,
)
from mezzotint.runtime.cpu import processor, units
from tests.runtime.cpu.conftest import prefer_own_products
from tests.runtime.layers import linear, noise, packed

LINEAR = Linear()
CONV = Conv2d(ConvGeometry((1, 1)))
GROUPED = Conv2d(ConvGeometry((1, 1), groups=2))


def request(
    weight: str = "int4/channel",
    activation: str = "int8/token",
    operation: Operation = LINEAR,
    device: str = "cpu",
) -> Request:
    found = parse_weight_format(weight)
    assert found is not None
    shape = (7, 64) if isinstance(operation, Linear) else (7, 64, 1, 1)
    return Request(operation, device, found, shape, parse_activation_format(activation))


INT8 = ("cpu-int8", "cpu-int8-onednn")


class TestSelection:
    @pytest.mark.parametrize("operation", [LINEAR, CONV], ids=["linear", "conv2d"])
    @pytest.mark.parametrize(
        "weight",
        ["int1/channel", "uint3/tensor", "int8/channel", "lut4/channel", "mixed/int2:3,int8:4"],
    )
    @pytest.mark.parametrize(
        "activation", ["int8/token", "int4/token", "uint8/tensor", "uint8/token"]
    )
    def test_integers_run_on_integer_units(
        self,
        weight: str,
        activation: str,
        operation: Operation,
    ):
        selection = select_kernel(request(weight, activation, operation))
        assert (selection.kernel.name in INT8, selection.kernel.arithmetic) == (True, "int8")
        assert selection.reason is None

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            (request(activation="float"), "needs activations of 8 bits or less"),
            (request("kmeans4/channel"), "needs uniform weights"),
            (request("int4/group32"), "needs one scale per output channel, not per group"),
        ],
        ids=str,
    )
    def test_a_fallback_says_why(self, asked: Request, why: str):
        selection = select_kernel(asked)
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-float", "float")
        assert set(str(selection.reason).split(f": {why}")[0].split(", ")) == set(INT8)

    def test_reasons_that_are_the_same_are_told_once(self):
        reason = str(select_kernel(request("kmeans4/channel")).reason)
        assert reason.count("needs uniform weights") == 1

    def test_each_kernel_says_what_it_lacks(self):
        selection = select_kernel(request("mixed/uint2:3,uint4:4", operation=GROUPED))
        assert selection.kernel.name == "cpu-float"
        assert dict(selection.refusals) == {
            "cpu-int8": "needs weights of one width where channels are in groups",
            "cpu-int8-onednn": "needs symmetric weights of one width where channels are in groups",
        }

    def test_a_processor_without_onednn_falls_back(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(processor, "ONEDNN", False)
        monkeypatch.setattr(units, "unit", lambda: None)
        assert "needs the 8-bit products of oneDNN" in str(select_kernel(request()).reason)

    @pytest.mark.parametrize(
        ("weight", "activation", "kernel"),
        [
            ("int8/channel", "int8/token", "cpu-float"),
            ("mixed/int2:3,int8:4", "uint8/tensor", "cpu-float"),
            ("int7/channel", "uint8/tensor", "cpu-int8-onednn"),
            ("int8/channel", "int7/token", "cpu-int8-onednn"),
        ],
    )
    def test_eight_by_eight_bits_need_vnni_by_onednn(
        self, weight: str, activation: str, kernel: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(processor, "VNNI", False)
        monkeypatch.setattr(units, "unit", lambda: None)
        selection = select_kernel(request(weight, activation))
        assert selection.kernel.name == kernel
        assert ("VNNI" in str(selection.reason)) == (kernel == "cpu-float")

    @pytest.mark.parametrize("weight", ["int8/channel", "mixed/int2:3,int8:4"])
    def test_the_package_s_own_products_need_neither_vnni_nor_onednn(
        self, weight: str, monkeypatch: pytest.MonkeyPatch
    ):
        prefer_own_products(monkeypatch)
        monkeypatch.setattr(processor, "ONEDNN", False)
        selection = select_kernel(request(weight, "int8/token"))
        assert (selection.kernel.name, selection.reason) == ("cpu-int8", None)

    def test_channels_in_groups_are_told_what_they_lack(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(processor, "VNNI", False)
        monkeypatch.setattr(units, "unit", lambda: None)
        asked = request("int8/channel", "int8/token", GROUPED)
        assert "needs VNNI for weights" in str(select_kernel(asked).reason)

    def test_sums_that_might_not_fit_are_not_made(self):
        selection = select_kernel(replace(request(), shape=(7, 65_794)))
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-float", "float")
        assert "sums fit into 32 bits" in str(selection.reason)

    def test_kernels_of_other_devices_are_not_asked(self):
        selection = select_kernel(request(device="elsewhere"))
        assert (selection.kernel.name, selection.reason) == ("reference", None)

    def test_where_gradients_must_pass_the_kernel_is_one_they_pass(self):
        assert not select_kernel(request(), differentiable=True).kernel.opaque


@dataclass(frozen=True, eq=False)
class _Rows(Prepared):
    """Somebody's own layout: floating rows, doubled, beside what is stored."""

    operation: Operation
    rows: Tensor

    @property
    @override
    def extra_bytes(self) -> int:
        return self.rows.nbytes


class _Doubling(Kernel):
    """Somebody's own kernel: Linear layers by twice their weight."""

    name = "doubling"
    arithmetic: Literal["float"] = "float"

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.prepared = 0

    @override
    def refuse(self, request: Request) -> str | None:
        self.asked.append(request)
        is_linear = isinstance(request.operation, Linear)
        return None if is_linear else "doubles Linear layers only"

    @override
    def prepare(
        self, weight: PackedWeight, operation: Operation, *, unpack: bool = False
    ) -> Prepared:
        self.prepared += 1
        return _Rows(operation, 2 * weight.dequantized(torch.float32))

    @override
    def run(
        self, prepared: Prepared, x: Tensor, quantizer: InputQuantizer | None, bias: Tensor | None
    ) -> Tensor:
        assert isinstance(prepared, _Rows)
        rounded = x if quantizer is None else quantizer.rounded(x, prepared.operation)
        return prepared.operation.apply(rounded, prepared.rows, bias)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels._KERNELS, "items", dict(kernels._KERNELS.items))


@pytest.mark.usefixtures("registry")
class TestRegistry:
    def test_the_reference_kernel_comes_last(self):
        assert registered_kernels()[-1].name == "reference"

    def test_a_preferred_kernel_is_asked_first(self):
        kernel = register_kernel(_Doubling())
        assert registered_kernels()[0] is kernel
        assert select_kernel(request()).kernel is kernel
        asked = request(operation=CONV, activation="float")
        reason = str(select_kernel(asked).reason)
        assert reason.startswith("doubling: doubles Linear layers only; cpu-int8")

    def test_two_kernels_of_one_name_are_refused(self):
        class Other(_Doubling):
            pass

        register_kernel(_Doubling())
        with pytest.raises(UsageError, match=r"Other: 'doubling' is the kernel .*\._Doubling;"):
            register_kernel(Other())

    def test_any_other_is_asked_last(self):
        kernel = register_kernel(_Doubling(), preferred=False)
        assert registered_kernels()[-1] is kernel
        assert select_kernel(request()).kernel is not kernel

    def test_a_layer_asks_and_prepares_once(self):
        kernel = _Doubling()
        register_kernel(kernel)
        layer = packed(linear(bias=False), "int4/channel", "int8/token")
        x = noise(3, 19)
        for _ in range(3):
            assert torch.allclose(layer(x), 2 * layer.to_float()(layer.round_input(x)), atol=1e-5)
        assert kernel.prepared == 1
        assert kernel.asked == [replace(request(), shape=(7, 19))]
        assert layer.prepared is not None
        assert layer.prepared.extra_bytes == 4 * 7 * 19

    def test_another_weight_is_prepared_anew(self):
        kernel = _Doubling()
        register_kernel(kernel)
        layer, other = (packed(linear(bias=False), "int4/channel") for _ in range(2))
        other.get_buffer("weight_codes").bitwise_not_()
        layer(noise(3, 19))
        layer.load_state_dict(other.state_dict())
        assert torch.equal(layer(noise(3, 19)), other(noise(3, 19)))

    def test_what_is_prepared_goes_with_the_stored_codes(self):
        register_kernel(_Doubling())
        layer = packed(linear(bias=False), "int4/channel")
        layer(noise(3, 19))
        gone = weakref.ref(layer.prepared)
        # As hooks do that take weights off a device after a call.
        layer._buffers["weight_codes"] = layer.get_buffer("weight_codes").to("meta")
        gc.collect()
        assert gone() is None

    def test_a_request_that_nobody_serves_is_a_lookup_error(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(kernels._KERNELS, "items", {})
        with pytest.raises(LookupError, match="no kernel accepts"):
            select_kernel(request())
