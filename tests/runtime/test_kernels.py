from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.runtime import (
    Kernel,
    QuantLayer,
    Request,
    kernels,
    register_kernel,
    registered_kernels,
    select_kernel,
)
from mezzotint.runtime.cpu import native, processor
from mezzotint.runtime.geometry import ConvGeometry
from tests.runtime.layers import linear, noise, packed

GROUPED = ConvGeometry((1, 1), groups=2)


def request(
    weight: str = "int4/channel",
    activation: str = "int8/token",
    operation: Literal["linear", "conv2d"] = "linear",
    device: str = "cpu",
) -> Request:
    found = parse_weight_format(weight)
    assert found is not None
    return Request(operation, device, found, parse_activation_format(activation))


class TestSelection:
    @pytest.mark.parametrize("operation", ["linear", "conv2d"])
    @pytest.mark.parametrize(
        "weight", ["int1/channel", "uint3/tensor", "int8/channel", "mixed/int2:3,int8:4"]
    )
    @pytest.mark.parametrize("activation", ["int8/token", "int4/token", "uint8/tensor"])
    def test_integers_run_on_integer_units(
        self,
        weight: str,
        activation: str,
        operation: Literal["linear", "conv2d"],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(processor, "VNNI", True)
        selection = select_kernel(request(weight, activation, operation))
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-int8", "int8")
        assert selection.reason is None

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            (request(activation="float"), "needs activations in int8/token or uint8/tensor"),
            (request(activation="uint8/token"), "needs activations in int8/token or uint8/tensor"),
            (request("kmeans4/channel"), "needs uniform weights"),
            (request("int4/group32"), "needs one scale per output channel, not per group"),
            (
                replace(request("uint4/channel", operation="conv2d"), geometry=GROUPED),
                "needs symmetric weights of one width where channels are in groups",
            ),
        ],
        ids=str,
    )
    def test_a_fallback_says_why(self, asked: Request, why: str):
        selection = select_kernel(asked)
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-float", "float")
        assert selection.reason == f"cpu-int8: {why}"

    def test_a_processor_without_onednn_falls_back(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(processor, "ONEDNN", False)
        monkeypatch.setattr(native, "multiplies", lambda: False)
        assert "needs the 8-bit products of oneDNN" in str(select_kernel(request()).reason)

    @pytest.mark.parametrize(
        ("weight", "activation", "kernel"),
        [
            ("int8/channel", "int8/token", "cpu-float"),
            ("mixed/int2:3,int8:4", "uint8/tensor", "cpu-float"),
            ("int7/channel", "uint8/tensor", "cpu-int8"),
            ("int8/channel", "int7/token", "cpu-int8"),
        ],
    )
    def test_eight_by_eight_bits_need_vnni_by_onednn(
        self, weight: str, activation: str, kernel: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(processor, "VNNI", False)
        monkeypatch.setattr(native, "multiplies", lambda: False)
        selection = select_kernel(request(weight, activation))
        assert selection.kernel.name == kernel
        assert ("VNNI" in str(selection.reason)) == (kernel == "cpu-float")

    @pytest.mark.parametrize("weight", ["int8/channel", "mixed/int2:3,int8:4"])
    def test_the_package_s_own_products_need_neither_vnni_nor_onednn(
        self, weight: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(processor, "VNNI", False)
        monkeypatch.setattr(processor, "ONEDNN", False)
        monkeypatch.setattr(native, "multiplies", lambda: True)
        selection = select_kernel(request(weight, "int8/token"))
        assert (selection.kernel.name, selection.reason) == ("cpu-int8", None)

    def test_channels_in_groups_are_told_what_they_lack(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(processor, "VNNI", False)
        monkeypatch.setattr(native, "multiplies", lambda: True)
        asked = replace(request("int8/channel", "int8/token", operation="conv2d"), geometry=GROUPED)
        assert "needs VNNI for weights" in str(select_kernel(asked).reason)

    def test_sums_that_might_not_fit_are_not_made(self):
        selection = select_kernel(replace(request(), columns=65_794))
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-float", "float")
        assert "sums fit into 32 bits" in str(selection.reason)

    def test_kernels_of_other_devices_are_not_asked(self):
        selection = select_kernel(request(device="elsewhere"))
        assert (selection.kernel.name, selection.reason) == ("reference", None)

    def test_where_gradients_must_pass_the_kernel_is_one_they_pass(self):
        assert not select_kernel(request(), differentiable=True).kernel.opaque


class _Doubling(Kernel):
    name = "doubling"
    arithmetic: Literal["float"] = "float"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def refuse(self, request: Request) -> str | None:
        self.asked.append(request)
        return None if request.operation == "linear" else "doubles Linear layers only"

    def run(self, layer: QuantLayer, x: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_KERNELS", list(kernels._KERNELS))


@pytest.mark.usefixtures("registry")
class TestRegistry:
    def test_the_reference_kernel_comes_last(self):
        assert registered_kernels()[-1].name == "reference"

    def test_a_preferred_kernel_is_asked_first(self):
        kernel = register_kernel(_Doubling())
        assert registered_kernels()[0] is kernel
        assert select_kernel(request()).kernel is kernel
        asked = request(operation="conv2d", activation="float")
        assert str(select_kernel(asked).reason).startswith(
            "doubling: doubles Linear layers only; cpu-int8: "
        )

    def test_any_other_is_asked_last(self):
        kernel = register_kernel(_Doubling(), preferred=False)
        assert registered_kernels()[-1] is kernel
        assert select_kernel(request()).kernel is not kernel

    def test_a_layer_asks_once_and_runs_what_it_got(self):
        kernel = _Doubling()
        register_kernel(kernel)
        layer = packed(linear(), "int4/channel", "int8/token")
        x = noise(3, 19)
        assert torch.equal(layer(x), 2 * x)
        layer(x)
        assert kernel.asked == [replace(request(), columns=19)]

    def test_a_request_that_nobody_serves_is_a_lookup_error(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(kernels, "_KERNELS", [])
        with pytest.raises(LookupError, match="no kernel accepts"):
            select_kernel(request())
