"""A tiny packed pipeline, engines of known pace, and a clock that goes on by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from diffusers import DiffusionPipeline, UNet2DConditionModel
from torch import nn

import mezzotint as mz
from mezzotint.engines import Engine, engine_of, register_engine
from mezzotint.engines.engine import _ENGINES
from mezzotint.engines.variant import base_class, variant
from mezzotint.errors import ModelError
from mezzotint.runtime import packed_layers
from tests.models import tiny
from tests.profiling.ticking import Clock, ticking


class Paced(Engine):
    """Computes what torch computes, so many calls; the clock knows how fast."""

    def __init__(self, name: str, *, refusal: str | None = None, calls: int = 10**6) -> None:
        self.name = name
        self.refusal = refusal
        self.calls = calls
        self.version = "1"
        self.attached = 0

    @property
    def versioned(self) -> str:
        return f"{self.name} {self.version}"

    def refuse(self, denoiser: nn.Module) -> str | None:
        return self.refusal

    def attach(self, denoiser: nn.Module) -> nn.Module:
        self.attached += 1

        def forward(module: nn.Module, *args, **kwargs):
            if not self.calls:
                raise ModelError("is tired\nand more")
            self.calls -= 1
            return base_class(module).forward(module, *args, **kwargs)

        return variant(denoiser, self.name, forward)

    def executions(self, denoiser: nn.Module) -> tuple[()]:
        return ()


@dataclass
class Paces:
    """Seconds of a call by each engine, and of the floating denoiser; and the clock."""

    seconds: dict[str, float] = field(default_factory=lambda: {"torch": 8.0, "floating": 4.0})
    clock: Clock = field(default_factory=Clock)

    def cost(self, module: nn.Module) -> float:
        if not isinstance(module, UNet2DConditionModel):
            return 0.0
        engine = engine_of(module).name if packed_layers(module) else "floating"
        return self.seconds[engine]

    def stop(self) -> None:
        """From now on the clock must not be read."""
        self.clock.most_readings = 0

    def engine(self, name: str, seconds: float, **options) -> Paced:
        """Register an engine of that pace, or in the place of torch; it is asked first."""
        self.seconds[name] = seconds
        made = Paced(name, **options)
        _ENGINES.items = {key: each for key, each in _ENGINES.items.items() if key != name}
        register_engine(made)
        return made


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paces]:
    """Torch alone, twice as slow as the floating denoiser, and what is registered beside it."""
    monkeypatch.setattr(_ENGINES, "_sources", dict(_ENGINES._sources))
    monkeypatch.setattr(_ENGINES, "items", {"torch": _ENGINES.named("torch")})
    made = Paces()
    with ticking(made.cost) as clock:
        made.clock = clock
        yield made


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """A folder of its own for what is known."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture(scope="session")
def floating() -> DiffusionPipeline:
    """A tiny Stable Diffusion in floating point; read only."""
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(attention=False))
    return pipe


@pytest.fixture(scope="session")
def plan(floating: DiffusionPipeline) -> mz.Plan:
    return mz.uniform_plan(floating.unet, weight_bits=8, act_bits=8)


@pytest.fixture(scope="session")
def packed(floating: DiffusionPipeline, plan: mz.Plan) -> DiffusionPipeline:
    """The same at 8 bits; read only."""
    return mz.apply(floating, plan).pipeline
