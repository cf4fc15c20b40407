"""Triton's compiler takes less than its interpreter; it needs no GPU, but emits code for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mezzotint.runtime import QuantLayer
from mezzotint.runtime.cuda import FloatKernel, Int8Kernel
from tests.runtime.layers import conv, linear, noise, packed, run

triton = pytest.importorskip("triton", reason="there is no Triton for this platform")

#: Ampere, Ada, Hopper.
ARCHITECTURES = (80, 89, 90)
PRODUCT = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma_async"}
POINTERS = {
    torch.uint8: "*u8",
    torch.int8: "*i8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def assembly(kernel: Any, arguments: dict[str, Any], architecture: int, **options: int) -> str:
    """PTX of a launch; the whole way to machine code is gone."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    hints: dict[tuple[int, ...], Any] = {}
    for index, name in enumerate(kernel.arg_names):
        value = arguments[name]
        if isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
            hints[(index,)] = [["tt.divisibility", 16]]
        elif kernel.params[index].is_constexpr or value is None or value == 1:
            # As Triton does it, ones are built in.
            signature[name] = "constexpr"
            constants[(index,)] = value
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                hints[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=hints)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options=options)
    assert compiled.asm["cubin"]
    return str(compiled.asm["ptx"])


def launches(
    layer: QuantLayer, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Any, dict[str, Any]]]:
    """Launches on a GPU: the kernels and their arguments."""
    from mezzotint.runtime.cuda import inputs, product, quantize_kernels, tuning
    from mezzotint.runtime.cuda.gemm import product_kernel

    found: list[tuple[Any, dict[str, Any]]] = []

    class Recorded:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: object) -> Any:
            return self

        def __call__(self, *args: Any, num_warps: int = 4, **kwargs: Any) -> None:
            named = dict(zip(self.kernel.arg_names, args, strict=False))
            found.append((self.kernel, named | kwargs | {"warps": num_warps}))

    names = ("tokens_kernel", "ranges_kernel", "parameters_kernel", "codes_kernel")
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(quantize_kernels, name, Recorded(getattr(quantize_kernels, name)))
        patch.setattr(inputs, "LONGEST_TOKEN", 64)
        patch.setattr(product, "launch", lambda each: found.append((product_kernel, each)))
        kernel = FloatKernel() if layer.activation_format is None else Int8Kernel()
        run(kernel, layer, x)
    config = tuning.CONFIGS[2]
    return [
        (kernel, arguments | config.kwargs | {"warps": arguments.get("warps", config.num_warps)})
        for kernel, arguments in found
    ]


LAYERS = {
    "linear": (linear(64, 80), "int4/channel", "int8/token", (3, 64)),
    "linear by half": (linear(512, 80), "uint3/group32", "float", (3, 512)),
    "codebook": (linear(65, 80), "kmeans3/channel", "float", (3, 65)),
    "lookup": (linear(64, 80), "lut4/channel", "uint8/token", (3, 64)),
    "lookup by half": (linear(64, 80), "lut6/channel", "float", (3, 64)),
    "integer groups": (linear(100, 80), "uint8/group48", "int8/token", (3, 100)),
    "mixed": (linear(64, 80), "mixed/uint5:40,uint8:40", "uint8/tensor", (3, 64)),
    "two levels": (linear(64, 80), "mixed/kmeans1:40,uint2:40", "uint4/tensor", (3, 64)),
    "conv": (conv(16, 32, 3, padding=1), "int6/channel", "uint8/token", (1, 16, 8, 8)),
    "conv by half": (conv(16, 32, 3, padding=1), "int1/tensor", "float", (1, 16, 8, 8)),
    "first conv": (conv(4, 32, 3, padding=1), "uint2/channel", "float", (1, 4, 8, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_launch_compiles_for_tensor_cores(name: str, monkeypatch: pytest.MonkeyPatch):
    layer, weight, activation, shape = LAYERS[name]
    # Each for one of the architectures in turn: compiling takes seconds.
    architecture = ARCHITECTURES[list(LAYERS).index(name) % len(ARCHITECTURES)]
    found = launches(packed(layer, weight, activation), noise(*shape).half(), monkeypatch)
    assert found
    for kernel, arguments in found:
        text = assembly(kernel, arguments, architecture, num_warps=arguments["warps"])
        assert (PRODUCT[architecture] in text) == (kernel.arg_names[1] == "y")
