"""The registry of engines, and how a pipeline gets one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from importlib import metadata
from typing import Literal

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._plugins import Registry
from mezzotint.engines.variant import original, variant_engine
from mezzotint.errors import UsageError
from mezzotint.models import Pipeline, find_denoiser, find_denoisers, with_components
from mezzotint.runtime import Execution

AUTO: Literal["auto"] = "auto"
"""The engine that measures fastest; `mezzotint.speed` chooses it."""


class Engine(ABC):
    """Computes a whole denoiser."""

    #: As users name it.
    name: str

    #: Package whose version its times depend on, beside torch and mezzotint.
    distribution: str | None = None

    @property
    def versioned(self) -> str:
        """Its name, and the version of the package where there is one that is installed."""
        try:
            version = None if self.distribution is None else metadata.version(self.distribution)
        except metadata.PackageNotFoundError:
            version = None
        return self.name if version is None else f"{self.name} {version}"

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


def attach_engine(
    pipe: DiffusionPipeline, engine: str, components: Collection[str] | None = None
) -> Pipeline:
    """The pipeline with its denoiser, or each of several, computed by `engine`.

    All tensors are shared.

    Args:
        pipe: left as it is; whatever engine it has.
        engine: name of one, such as `torch` or `openvino`.
        components: names of the denoisers that get it; by default all.

    Raises:
        UsageError: the engine is unknown, not installed, or cannot serve the pipeline where it is.
    """
    chosen = engine_named(engine)
    denoisers, attached = find_denoisers(pipe), dict[str, nn.Module]()
    if not denoisers:
        find_denoiser(pipe)  # says so
    for component, denoiser in denoisers.items():
        if components is not None and component not in components:
            continue
        plain = original(denoiser)
        why = chosen.refuse(plain)
        if why is not None:
            raise UsageError(f"engine: {engine} {why}")
        attached[component] = chosen.attach(plain)
    served: Pipeline = with_components(pipe, attached)
    return served


def engine_of(denoiser: nn.Module) -> Engine:
    """The engine that computes a denoiser; torch unless `attach_engine` gave it another."""
    return _ENGINES.named(variant_engine(denoiser) or "torch")


def engine_executions(denoiser: nn.Module) -> tuple[Execution, ...]:
    """Execution of each packed layer, told by the engine that computes the denoiser.

    Raises:
        UsageError: the engine compiles, and the denoiser has not been called yet.
    """
    return engine_of(denoiser).executions(denoiser)
