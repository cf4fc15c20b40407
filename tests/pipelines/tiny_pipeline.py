"""A tiny random pipeline, how it is called, and what is refused for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline

PROMPTS = ("owl", "red apple")


@dataclass(frozen=True)
class Refusal:
    """An error of ours that is expected in a cell of the matrix.

    Attributes:
        message: regular expression that is found in it: the remedy.
        why: sentence for the documentation.
    """

    message: str
    why: str


@dataclass(frozen=True, eq=False)
class TinyPipeline:
    """A stock class of diffusers around small random components.

    Attributes:
        title: of the published model whose structure it has.
        build: makes it, the same whenever it is called.
        generation: content of its `generation.json`.
        call_kwargs: makes further arguments of its call for two images: pictures, masks, labels.
        prompts: of two images; none for a pipeline that takes none.
        loaded_whole: classes of modules that read weights of layers without calling them, so that
            accelerate has to load those with the module, floating or packed.
        half: dtype of 16 bits in which diffusers' own pipeline can draw.
        refusals: column of the matrix → the error. All other columns work.
    """

    title: str
    build: Callable[[], DiffusionPipeline]
    generation: Mapping[str, Any]
    call_kwargs: Callable[[], dict[str, Any]] = dict
    prompts: tuple[str, ...] = PROMPTS
    loaded_whole: tuple[str, ...] = ()
    half: torch.dtype = torch.bfloat16
    refusals: Mapping[str, Refusal] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.title.lower().replace(" ", "-").replace(",", "")

    def drawn(self, pipe: DiffusionPipeline) -> npt.NDArray[np.floating]:
        """Two images, or videos, of any copy of the pipeline, as diffusers makes them.

        Returns:
            [2, height, width, 3], or [2, frames, height, width, 3].
        """
        given = {**self.generation, **self.call_kwargs()}
        if self.prompts:
            given["prompt"] = list(self.prompts)
        elif "batch_size" in inspect.signature(type(pipe).__call__).parameters:
            given["batch_size"] = len(PROMPTS)
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]
        pipe.set_progress_bar_config(disable=True)
        return np.asarray(pipe(generator=generators, output_type="np", **given)[0])
