import os
import subprocess
import sys

import pytest
import torch

from mezzotint.formats import parse_activation_format, parse_weight_format
from mezzotint.runtime import Conv2d, ConvGeometry, Request, select_kernel
from mezzotint.runtime.cuda import kernel
from tests.docs.pages import ROOT
from tests.runtime.layers import WEIGHTS


def request(weight: str, activation: str, groups: int = 1) -> Request:
    found = parse_weight_format(weight)
    assert found is not None
    operation = Conv2d(ConvGeometry((1, 1), groups=groups))
    shape = (7, 48, 1, 1)
    return Request(operation, "cuda", found, shape, parse_activation_format(activation))


@pytest.fixture
def equipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "missing", lambda: None)


@pytest.mark.usefixtures("equipped")
class TestSelection:
    @pytest.mark.parametrize("weight", [*WEIGHTS, "mixed/uint2:3,uint8:4", "lut4/channel"])
    @pytest.mark.parametrize(
        "activation", ["int8/token", "uint8/tensor", "uint4/token", "uint4/step"]
    )
    def test_integers_run_on_integer_units(self, weight: str, activation: str):
        selection = select_kernel(request(weight, activation))
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cuda-int8", "int8")
        assert selection.reason is None

    @pytest.mark.parametrize(
        ("asked", "why"),
        [
            (request("int4/channel", "float"), "needs activations of 8 bits or less"),
            (request("kmeans4/channel", "int8/token"), "levels of a codebook are not integers"),
        ],
        ids=["float", "codebook"],
    )
    def test_all_else_is_computed_in_floating_point(self, asked: Request, why: str):
        selection = select_kernel(asked)
        assert (selection.kernel.name, selection.kernel.arithmetic) == ("cuda-float", "float")
        assert selection.reason == f"cuda-int8: {why}"

    def test_mixed_weights_of_grouped_channels_are_left_to_the_reference_kernel(self):
        selection = select_kernel(request("mixed/int2:3,int8:4", "int8/token", groups=2))
        assert selection.kernel.name == "reference"
        assert "stored across the groups" in str(selection.reason)

    def test_so_are_convolutions_of_each_channel_alone(self):
        selection = select_kernel(request("int4/channel", "int8/token", groups=320))
        assert selection.kernel.name == "reference"
        assert "32 groups or less, not 320" in str(selection.reason)


class TestMissing:
    def test_without_a_device_the_reason_is_said(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(kernel, "find_spec", lambda name: name)
        selection = select_kernel(request("int4/channel", "int8/token"))
        assert selection.kernel.name == "reference"
        assert selection.reason == ("cuda-int8, cuda-float: there is no CUDA device")

    def test_compilers_need_not_look_into_it(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

        def computed(x: torch.Tensor) -> torch.Tensor:
            return x if kernel.missing() is None else x + 1

        compiled = torch.compile(computed, backend="eager", fullgraph=True)
        assert torch.equal(compiled(torch.zeros(1)), torch.ones(1))

    def test_without_triton_the_reason_is_said(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(kernel, "find_spec", lambda name: None)
        assert "needs Triton, which is not installed" in str(kernel.missing())

    @pytest.mark.parametrize(("capability", "fits"), [((7, 5), False), ((8, 0), True)])
    def test_old_devices_are_refused(
        self, capability: tuple[int, int], fits: bool, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(kernel, "find_spec", lambda name: name)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        why = None if fits else "needs compute capability 8.0, this GPU has 7.5"
        assert kernel.missing() == why


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_layers_of_the_cpu_run_without_what_imports_triton():
    script = """
import sys
from tests.runtime.layers import linear, noise, packed
packed(linear(), "int4/channel", "int8/token")(noise(2, 19))
assert "mezzotint.runtime.cuda.kernel" in sys.modules
assert "mezzotint.runtime.cuda.gemm" not in sys.modules
"""
    done = run("-c", script)
    assert done.returncode == 0, done.stderr


def test_what_the_kernels_compute_in_the_interpreter():
    pytest.importorskip("triton", reason="there is no Triton for this platform")
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime/cuda")
    done = run(*tests, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
