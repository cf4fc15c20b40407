import pytest
import torch
from torch import nn

from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, Kernel, kernels, quantize_module
from mezzotint.runtime.cuda import FloatKernel, Int8Kernel, kernel
from tests.runtime.layers import RANGE, noise


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels serve layers of this machine, in the interpreter."""
    monkeypatch.setattr(kernel, "missing", lambda: None)
    served: list[Kernel] = [Int8Kernel(), FloatKernel()]
    for each in served:
        monkeypatch.setattr(type(each), "device", "cpu")
    monkeypatch.setattr(kernels, "_KERNELS", [*served, *kernels._KERNELS])


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("activation", "name"), [("float", "cuda-float"), ("uint8/tensor", "cuda-int8")]
)
def test_compilers_take_a_model_in_one_piece(activation: str, name: str):
    model = nn.Sequential(nn.Conv2d(8, 5, 1), nn.SiLU(), nn.Flatten(), nn.Linear(30, 7))
    plan = Plan({each: Choice("int4/channel", activation) for each in ("0", "3")})
    quantize_module(model, plan, Calibration({"0": (RANGE,), "3": (RANGE,)}))
    assert model[0].selection.kernel.name == name
    x = noise(2, 8, 2, 3)
    expected = model(x)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
