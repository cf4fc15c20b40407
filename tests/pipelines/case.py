"""A tiny pipeline on disk, floating and packed, and what it draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint.models import find_denoisers
from mezzotint.plan import joined_plan
from tests.models.tiny import write_generation
from tests.pipelines.fresh_process import FreshProcess
from tests.pipelines.tiny_pipeline import PROMPTS, TinyPipeline

Images = npt.NDArray[np.floating]


def apart(images: Images, others: Images) -> float:
    """Mean distance of pixels."""
    return float(np.abs(images - others).mean())


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the matrix; what several columns need is made once.

    Attributes:
        tiny: the pipeline.
        folder: to work in.
        process: loads and draws on demand.
    """

    tiny: TinyPipeline
    folder: Path
    process: FreshProcess

    @property
    def sampling(self) -> mz.Sampling:
        """Images to record and to compare."""
        count = None if self.tiny.prompts else len(PROMPTS)
        return mz.Sampling(self.tiny.prompts, count=count, call_kwargs=self.tiny.call_kwargs())

    @cached_property
    def floating_folder(self) -> Path:
        """The pipeline, saved by diffusers."""
        folder = self.folder / "floating"
        self.tiny.build().save_pretrained(folder)
        write_generation(folder, **self.tiny.generation)
        return folder

    def floating(self) -> DiffusionPipeline:
        """The pipeline, loaded anew."""
        return mz.load(self.floating_folder)

    @cached_property
    def original(self) -> Images:
        """Images of the floating pipeline."""
        return self.tiny.drawn(self.floating())

    @cached_property
    def packed_folder(self) -> Path:
        """The pipeline with 4-bit weights and 8-bit inputs, saved."""
        pipe = self.floating()
        plans = {
            name: mz.uniform_plan(denoiser, weight_bits=4, act_bits=8)
            for name, denoiser in find_denoisers(pipe).items()
        }
        plan = joined_plan(plans) if len(plans) > 1 else next(iter(plans.values()))
        return mz.apply(pipe, plan).save(self.folder / "packed")

    def packed(self) -> DiffusionPipeline:
        """The packed pipeline, loaded anew."""
        return mz.load(self.packed_folder)

    @cached_property
    def expected(self) -> Images:
        """Images of the packed pipeline."""
        return self.tiny.drawn(self.packed())

    def assert_close(self, images: Images, share: float = 0.5) -> None:
        """Each image is far nearer to the original's than two images of that are to each other."""
        first, second = self.original
        assert images.shape == self.original.shape
        assert 0 < apart(images, self.original) < share * apart(first, second)
