"""torch: every packed layer on the kernel that suits it."""

from __future__ import annotations

from torch import nn
from typing_extensions import override

from mezzotint.engines.engine import Engine, register_engine
from mezzotint.runtime import Execution, executions


class TorchEngine(Engine):
    """The denoiser as it is."""

    name = "torch"

    @override
    def refuse(self, denoiser: nn.Module) -> str | None:
        return None

    @override
    def attach(self, denoiser: nn.Module) -> nn.Module:
        return denoiser

    @override
    def executions(self, denoiser: nn.Module) -> tuple[Execution, ...]:
        return executions(denoiser)


register_engine(TorchEngine(), preferred=False)
