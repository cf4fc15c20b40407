from typing import Literal

import pytest
import torch
from torch import Tensor

from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.runtime import (
    Kernel,
    QuantLayer,
    Request,
    int8,
    kernels,
    register_kernel,
    registered_kernels,
    select_kernel,
)
from tests.runtime.layers import linear, noise, packed


def request(
    weight: str = "int4/channel",
    activation: str = "int8/token",
    operation: Literal["linear", "conv2d"] = "linear",
    device: str = "cpu",
) -> Request:
    found = parse_weight_format(weight)
    assert found is not None
    return Request(operation, device, found, parse_activation_format(activation))


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "_VNNI", True)


@pytest.mark.usefixtures("vnni")
class TestSelection:
    @pytest.mark.parametrize("weight", ["int2/channel", "uint3/tensor", "int8/channel"])
    @pytest.mark.parametrize("activation", ["int8/token", "int4/token"])
    def test_integer_linears_run_on_integer_units(self, weight: str, activation: str):
        selection = select_kernel(request(weight, activation))
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cpu-int8", "int8")
        assert selection.reason is None

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            (request(operation="conv2d"), "computes Linear layers only"),
            (request(device="cuda"), "runs on the CPU, not on cuda"),
            (request(activation="float"), "needs activations in int8/token"),
            (request(activation="uint8/token"), "needs activations in int8/token"),
            (request(activation="int8/tensor"), "needs activations in int8/token"),
            (request("int1/channel"), "needs uniform weights of 2 to 8 bits"),
            (request("int4/group32"), "needs one scale per output channel, not per group"),
        ],
        ids=str,
    )
    def test_a_fallback_says_why(self, asked: Request, why: str):
        selection = select_kernel(asked)
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("reference", "float")
        assert selection.reason == f"cpu-int8: {why}"

    def test_a_processor_without_vnni_falls_back(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(int8, "_VNNI", False)
        assert "no VNNI" in str(select_kernel(request()).reason)


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
        assert str(select_kernel(request(operation="conv2d")).reason).startswith(
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
        assert kernel.asked == [request()]

    def test_a_request_that_nobody_serves_is_a_lookup_error(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(kernels, "_KERNELS", [])
        with pytest.raises(LookupError, match="no kernel accepts"):
            select_kernel(request())
