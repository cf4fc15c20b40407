"""A pipeline whose denoiser is a contestant: images and replayed calls for peers.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .flat_arguments import named
from .messages import Inputs, Loaded, Request


@dataclass
class Session:
    """A mezzotint pipeline (its sampling and its seeds) around somebody else's denoiser."""

    pipe: Any
    original: nn.Module
    loaded: Loaded

    @classmethod
    def of(
        cls,
        tool_of: Callable[[Request], Any],
        *,
        model: str,
        request: dict[str, Any],
        prompts: list[str],
        seed: int,
    ) -> Session:
        """Load the pipeline, calibrate on calls of `prompts`, and put the contestant in."""
        import mezzotint as mz  # noqa: PLC0415  (only these sessions need it)
        from mezzotint.models import find_denoiser, record_calls  # noqa: PLC0415

        # Images do not get better by it, and compiling every batch size takes minutes.
        os.environ["SDNQ_USE_TORCH_COMPILE"] = "0"
        wanted = Request(**request)
        torch.set_num_threads(wanted.threads)
        pipe = mz.load(model)
        component, original = find_denoiser(pipe)
        calls = record_calls(pipe, mz.Sampling(prompts=tuple(prompts), seed=seed))
        samples = [named(original, call.args, dict(call.kwargs)) for call in calls]
        tool = tool_of(wanted)
        with torch.no_grad():
            if hasattr(tool, "prepare"):
                tool.prepare(wanted, samples)
            loaded = tool.load(wanted, samples)
        setattr(pipe, component, Denoiser(original, loaded))
        return cls(pipe, original, loaded)

    def figures(self) -> dict[str, Any]:
        """Stored bytes and versions: float32 parameters count in the 16 bits of stored ones."""
        return {
            "stored_bytes": self.loaded.stored_bytes - self.loaded.float32_bytes // 2,
            "held_bytes": self.loaded.held_bytes,
            "note": self.loaded.note,
            "versions": {"torch": torch.__version__} | self.loaded.versions,
        }

    def generate(self, path: str, sampling: dict[str, Any]) -> None:
        import mezzotint as mz  # noqa: PLC0415

        wanted = mz.Sampling(**sampling | {"prompts": tuple(sampling["prompts"])})
        np.save(path, mz.generate(self.pipe, wanted))

    @torch.no_grad()
    def replay(self, calls: str, path: str) -> None:
        denoiser = next(p for p in self.pipe.components.values() if isinstance(p, Denoiser))
        outputs = {
            str(index): denoiser(*call["args"], **call["kwargs"])[0].float().cpu().numpy()
            for index, call in enumerate(torch.load(calls, weights_only=True))
        }
        np.savez(path, **outputs)


class Denoiser(nn.Module):
    """Denoiser for a pipeline: looks like the original, and computes with the contestant.

    The original's weights are not used: only its signature, configuration and the like.
    """

    def __init__(self, original: nn.Module, loaded: Loaded) -> None:
        super().__init__()
        self._original = [original]  # in a list, so that it is no submodule
        self._loaded = loaded

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        inputs: Inputs = named(self._original[0], args, kwargs)
        return (self._loaded.call(inputs),)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_original"][0], name)
