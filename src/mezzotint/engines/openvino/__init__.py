"""OpenVINO: the whole denoiser compiled for the CPU after our plan. An optional extra."""

# ruff: noqa: PLC0415  (openvino is optional, and slow to import)

from __future__ import annotations

import importlib.util

import torch
from torch import nn
from typing_extensions import override

from mezzotint.engines.engine import Engine, register_engine
from mezzotint.engines.variant import variant
from mezzotint.runtime import Execution, packed_layers, rounded_attention


class OpenVINOEngine(Engine):
    """Compiles a denoiser on its first call, and again for each new shape of its inputs.

    Weights keep the codes and scales of the packed layers. The packed module stays at hand, for
    saving and for new shapes, and costs its packed bytes.
    """

    name = "openvino"
    distribution = "openvino"

    @override
    def refuse(self, denoiser: nn.Module) -> str | None:
        if importlib.util.find_spec("openvino") is None:
            return "is not installed; run `pip install mezzotint[openvino]`"
        device = next((tensor.device for tensor in denoiser.parameters()), torch.device("cpu"))
        if device.type != "cpu":
            return f"computes on the CPU, but the denoiser is on {device}; move the pipeline first"
        if rounded_attention(denoiser) is not None:
            return "cannot round what attention multiplies, which is simulated; use engine torch"
        if not any(layer.choice.structures for layer in packed_layers(denoiser).values()):
            return None
        from mezzotint.engines.openvino.structure_nodes import refused_structure

        return refused_structure(denoiser)

    @override
    def attach(self, denoiser: nn.Module) -> nn.Module:
        from mezzotint.engines.openvino.forward import Compilations, forward

        served = variant(denoiser, self.name, forward)
        served.compilations = Compilations()  # type: ignore[assignment]
        return served

    @override
    def executions(self, denoiser: nn.Module) -> tuple[Execution, ...]:
        from mezzotint.engines.openvino.observed import observed_executions

        return observed_executions(denoiser)


register_engine(OpenVINOEngine())
