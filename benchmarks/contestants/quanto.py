"""optimum-quanto."""

from __future__ import annotations

import importlib.metadata

import torch
from optimum import quanto

from .messages import CannotRunError, Inputs, Loaded, Request
from .torch_floating import load_module, loaded

TYPES = {8: quanto.qint8, 4: quanto.qint4, 2: quanto.qint2}


def load(request: Request, calibration: list[Inputs]) -> Loaded:
    bits, activations = request.options["bits"], request.options.get("act_bits", 16)
    if bits not in TYPES:
        raise CannotRunError(f"has no {bits}-bit weights")
    module = load_module(request)
    quanto.quantize(
        module, weights=TYPES[bits], activations=quanto.qint8 if activations == 8 else None
    )
    if activations == 8:
        with torch.no_grad(), quanto.Calibration():
            for inputs in calibration:
                module(**inputs)
    quanto.freeze(module)
    versions = {"optimum-quanto": importlib.metadata.version("optimum-quanto")}
    return loaded(module, request, versions=versions)
