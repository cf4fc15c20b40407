"""The worker: a process with the model, which runs what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.errors import UsageError
from mezzotint.measuring.in_process import Runner
from mezzotint.measuring.metrics import Figures
from mezzotint.measuring.ray_cluster.blueprint import Blueprint, UnlikeSourceError
from mezzotint.measuring.ray_cluster.luggage import Recorded
from mezzotint.measuring.run import Task
from mezzotint.models import Sampling, generate


class Worker:
    """Builds the model once, and runs tasks on it one after another.

    Args:
        blueprint: of the model.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._recorded: Recorded | None = None
        self._runner: Runner | None = None

    def begin(self) -> str | None:
        """Build the model.

        Returns:
            The reason why that cannot be done after the source; None where all is well.
        """
        torch.set_num_threads(self._blueprint.threads)
        try:
            self._built[1].eval()
        except UnlikeSourceError as cause:
            return str(cause)
        return None

    @cached_property
    def _built(self) -> tuple[DiffusionPipeline | None, nn.Module]:
        return self._blueprint.built()

    def figures(self, recorded: Recorded, tasks: Sequence[Task]) -> Iterator[Figures]:
        """Yield the figures of tasks that share a layer.

        What runs before it is remembered, for further tasks of this or a later one.
        """
        if self._runner is None or recorded != self._recorded:
            pipe, denoiser = self._built
            self._runner, self._recorded = None, recorded  # memory first
            self._runner = Runner(recorded.original(denoiser, pipe))
        yield from self._runner.figures(tasks)

    def images(self, samplings: Sequence[Sampling]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the images of each sampling, uint8 [n, H, W, 3]."""
        pipe, _ = self._built
        if pipe is None:
            raise UsageError("a bare denoiser makes no images; give a pipeline")
        for sampling in samplings:
            yield generate(pipe, sampling, progress=False)
