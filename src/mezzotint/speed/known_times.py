"""Times of packed denoisers that were measured on this machine before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

from diffusers import DiffusionPipeline
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from mezzotint._files import read_json, validated, write_json
from mezzotint.engines import engine_named
from mezzotint.errors import MezzotintError, ProfileError
from mezzotint.evaluation import CallTimes, Source, packed_denoisers
from mezzotint.models import device_of, find_denoisers
from mezzotint.plan import Sampling
from mezzotint.profiling import Machine, cache_file
from mezzotint.runtime import executions

FLOATING = "floating"
"""Name of the floating denoiser among those that are compared with torch."""

TORCH = "torch"

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _RatioModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ratio: _Positive
    source: Source


class _TimesModel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    milliseconds: _Positive
    ratios: dict[str, _RatioModel]
    failures: dict[str, str]


@dataclass(frozen=True)
class KnownTimes:
    """Times of one call of a pipeline's packed denoisers, against torch's in the same rounds.

    Attributes:
        path: of the file that keeps them.
        milliseconds: by torch; 0 where nothing is known.
        ratios: engine and version, or `floating`, → its time by torch's, and where that is from.
        failed: engine and version → why it did not compute the call.
    """

    path: Path
    milliseconds: float = 0.0
    ratios: Mapping[str, tuple[float, Source]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pipe: DiffusionPipeline, sampling: Sampling | None, batch: int = 1) -> Self:
        """All that is known on this machine of calls for `batch` images of a sampling.

        A file that cannot be read counts for none: it is written anew.

        Raises:
            UsageError: no denoiser is packed.
        """
        path = cache_file(_work(pipe, sampling, batch), "engines/{}.json")
        if not path.is_file():
            return cls(path)
        try:
            value = read_json(path, ProfileError)
            model = validated(_TimesModel, value, str(path), ProfileError)
        except MezzotintError:
            return cls(path)
        ratios = {name: (each.ratio, each.source) for name, each in model.ratios.items()}
        return cls(path, model.milliseconds, ratios, model.failures)

    def ratio(self, engine: str) -> float | None:
        """Time of an engine by torch's; None where it was not measured in its present version."""
        found = self.ratios.get(engine_named(engine).versioned)
        return None if found is None else found[0]

    def failures(self, engines: Iterable[str]) -> dict[str, str]:
        """Those of some engines that failed in their present versions: why, and the remedy."""
        found = {name: self.failed.get(engine_named(name).versioned) for name in engines}
        return {
            name: f"failed before ({why}); delete {self.path} to try it again"
            for name, why in found.items()
            if why is not None
        }

    @property
    def floating(self) -> tuple[float, Source] | None:
        """Time of the floating denoiser by torch's, and where that is from; None if unknown."""
        return self.ratios.get(FLOATING)

    def with_engines(
        self, milliseconds: float, ratios: Mapping[str, float], failures: Mapping[str, str]
    ) -> Self:
        """The same with other times of engines by torch's, and reasons of those that failed."""
        timed: dict[str, tuple[float, Source]] = {
            engine_named(name).versioned: (ratio, "timed") for name, ratio in ratios.items()
        }
        failed = {engine_named(name).versioned: why for name, why in failures.items()}
        return replace(
            self,
            milliseconds=milliseconds,
            ratios={**self.ratios, **timed},
            failed={**self.failed, **failed},
        )

    def with_call_times(self, times: CallTimes) -> Self:
        """The same with what was measured beside the floating denoiser, torch among it."""
        found = {each.engine: each for each in times.packed}
        torch = found[TORCH]
        ratios = {name: each.ratio / torch.ratio for name, each in found.items()}
        timed = self.with_engines(torch.milliseconds, ratios, times.left_out)
        return replace(timed, ratios={**timed.ratios, FLOATING: (1 / torch.ratio, times.source)})

    def save(self) -> None:
        """Keep them for later."""
        write_json(self.path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "milliseconds": self.milliseconds,
            "ratios": {
                name: {"ratio": ratio, "source": source}
                for name, (ratio, source) in self.ratios.items()
            },
            "failures": dict(self.failed),
        }


def _work(pipe: DiffusionPipeline, sampling: Sampling | None, batch: int) -> dict[str, Any]:
    """Everything that the times depend on, but for the engines: the machine, and the work."""
    found = find_denoisers(pipe)
    parts = {name: found[name] for name in packed_denoisers(pipe)}
    work = {
        "pipeline": type(pipe).__name__,
        "denoisers": {name: _described(part) for name, part in parts.items()},
        "batch": batch,
        # Prompts, seeds and steps change neither shapes nor times.
        "guidance": None if sampling is None else sampling.guidance,
        "call_kwargs": {} if sampling is None else sampling.repeated(1).call_kwargs.to_dict(),
    }
    device = device_of(next(iter(parts.values())))
    text = json.dumps(work, sort_keys=True, default=str)
    return {
        "machine": Machine.here(device).to_dict(),
        "work": hashlib.sha256(text.encode()).hexdigest(),
    }


def _described(denoiser: nn.Module) -> dict[str, Any]:
    config = {
        name: value
        for name, value in dict(getattr(denoiser, "config", {})).items()
        if not name.startswith("_") and name != "quantization_config"
    }
    return {
        "class": type(denoiser).__name__,
        "config": config,
        "processors": sorted(
            type(each).__name__ for each in getattr(denoiser, "attn_processors", {}).values()
        ),
        "floating": [
            (name, list(each.shape), str(each.dtype)) for name, each in denoiser.named_parameters()
        ],
        "packed": [
            (each.layer, each.choice.to_dict(), each.kernel) for each in executions(denoiser)
        ],
    }
