"""The registry of engines, and how a pipeline gets one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._plugins import Registry
from mezzotint.engines.variant import original, variant_engine
from mezzotint.errors import UsageError
from mezzotint.models import Pipeline, find_denoiser, find_denoisers, with_components
from mezzotint.runtime import Execution, packed_layers

AUTO: Literal["auto"] = "auto"
"""The first engine that is installed and serves the pipeline's denoiser where it stands."""


class Engine(ABC):
    """Computes a whole denoiser."""

    #: As users name it.
    name: str

    @abstractmethod
    def refuse(self, denoiser: nn.Module) -> str | None:
        """Reason why this engine cannot compute the denoiser, with the remedy; None when it can."""

    @abstractmethod
    def attach(self, denoiser: nn.Module) -> nn.Module:
        """A module like `denoiser`, sharing its tensors, that this engine computes.

        Args:
            denoiser: as diffusers made it, packed or not; left alone.
        """

    @abstractmethod
    def executions(self, denoiser: nn.Module) -> tuple[Execution, ...]:
        """Execution of each packed layer of an attached denoiser.

        Raises:
            UsageError: it is not known before the first call.
        """


_ENGINES: Registry[Engine] = Registry("engines", "engine", reserved=(AUTO,))


def register_engine(engine: Engine, *, preferred: bool = True) -> Engine:
    """Add an engine: `auto` asks it first when preferred, else last.

    Raises:
        UsageError: there is one of its name, or it is named `auto`.
    """
    _ENGINES.add(engine.name, engine, type(engine), first=preferred)
    return engine


def engines() -> tuple[Engine, ...]:
    """All engines, as `auto` asks them."""
    return _ENGINES.all()


def engine_named(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: there is none.
    """
    if name == AUTO:
        raise UsageError(f"engine: {AUTO!r} is a choice among engines, not one of them")
    return _ENGINES.named(name)


def check_engine(name: str) -> None:
    """Raise UsageError unless there is an engine of that name, or it is `auto`."""
    if name != AUTO:
        _ENGINES.named(name)


def with_engine(pipe: DiffusionPipeline, engine: str) -> Pipeline:
    """The pipeline with its denoiser, or each of several, computed by `engine`.

    All tensors are shared.

    Args:
        pipe: left as it is; whatever engine it has.
        engine: `torch`, `openvino`, or `auto`: openvino where it is installed, the pipeline is on
            the CPU and its denoiser is packed, else torch.

    Raises:
        UsageError: the engine is unknown, not installed, or cannot serve the pipeline where it is.
    """
    check_engine(engine)
    denoisers, attached = find_denoisers(pipe), dict[str, nn.Module]()
    if not denoisers:
        find_denoiser(pipe)  # says so
    for component, denoiser in denoisers.items():
        plain = original(denoiser)
        if engine == AUTO:
            chosen = _automatic(plain)
        else:
            chosen = engine_named(engine)
            why = chosen.refuse(plain)
            if why is not None:
                raise UsageError(f"engine: {engine} {why}")
        attached[component] = chosen.attach(plain)
    served: Pipeline = with_components(pipe, attached)
    return served


def _automatic(denoiser: nn.Module) -> Engine:
    able = (engine for engine in engines() if engine.refuse(denoiser) is None)
    # A denoiser in floating point is compiled only on request: our plan adds nothing there.
    return next(able) if packed_layers(denoiser) else engine_of(denoiser)


def engine_of(denoiser: nn.Module) -> Engine:
    """The engine that computes a denoiser; torch unless `with_engine` gave it another."""
    return _ENGINES.named(variant_engine(denoiser) or "torch")


def engine_executions(denoiser: nn.Module) -> tuple[Execution, ...]:
    """Execution of each packed layer, told by the engine that computes the denoiser.

    Raises:
        UsageError: the engine compiles, and the denoiser has not been called yet.
    """
    return engine_of(denoiser).executions(denoiser)
