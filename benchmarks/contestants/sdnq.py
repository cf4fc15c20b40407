"""SDNQ, with its quantized matrix product where the activations are quantized too."""

from __future__ import annotations

import importlib.metadata

from sdnq import sdnq_post_load_quant

from .messages import Inputs, Loaded, Request
from .torch_floating import load_module, loaded


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    options = request.options
    module = load_module(request)
    matmul = bool(options.get("quantized_matmul"))
    module = sdnq_post_load_quant(
        module,
        weights_dtype=options["weights"],
        quant_conv=bool(options.get("conv", True)),
        use_quantized_matmul=matmul,
        use_quantized_matmul_conv=matmul and bool(options.get("conv", True)),
        use_svd=bool(options.get("svd")),
        torch_dtype=request.torch_dtype,
    )
    versions = {"sdnq": importlib.metadata.version("sdnq")}
    return loaded(module, request, versions=versions)
