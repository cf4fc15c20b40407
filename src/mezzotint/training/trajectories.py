"""Trajectories of a pipeline: its scheduler and guidance, on outputs that training gives it."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from mezzotint.models import Call, Sampling, generation_defaults
from mezzotint.models.patching import patched
from mezzotint.models.sampling import run_batches
from mezzotint.training.separate_guidance import check_guidance_is_joint

Answer = Callable[[Call], Tensor]
"""Computes the output of one call of the denoiser, in its place."""


@dataclass(frozen=True)
class Trajectories:
    """An endless row of trajectories, each of one batch of prompts; all told by their index.

    Attributes:
        pipe: floating; runs its own scheduler on the outputs that it is given.
        denoiser: of the pipeline.
        source: images that training draws from: all of them, in another order each time, with
            other noise, at the pipeline's own steps and guidance.
        batch: images of a trajectory.
        seed: of their order and their noise.
        own_share: share of the trajectories that the student draws itself.
    """

    pipe: DiffusionPipeline
    denoiser: nn.Module
    source: Sampling
    batch: int
    seed: int
    own_share: float = 0.0

    def sampling(self, index: int) -> Sampling:
        """The images of a trajectory."""
        count = len(self.source)
        places = range(index * self.batch, (index + 1) * self.batch)
        chosen = []
        for place in places:
            turn, rank = divmod(place, count)
            order = list(range(count))
            random.Random(f"{self.seed} {turn}").shuffle(order)  # noqa: S311  (no secret)
            chosen.append(order[rank])
        # Noise that no evaluation and no calibration draws, whose seeds are small.
        first = (self.seed * 1_000_003 + index * self.batch + 2**40) % 2**62
        found = self.source.picked(chosen, first)
        return replace(found, steps=None, guidance=None, batch=self.batch)

    def own(self, index: int) -> bool:
        """True where the student's own outputs lead the way."""
        return random.Random(f"{self.seed} own {index}").random() < self.own_share  # noqa: S311

    def run(self, index: int, answer: Answer) -> None:
        """Let the pipeline run a trajectory on the outputs of `answer`.

        Raises:
            ModelError: the pipeline's own code fails, or it makes no images from noise.
            UsageError: it calls the denoiser once for each half of guidance.
        """
        with answering(self.denoiser, check_guidance_is_joint(self.denoiser, answer)):
            for _ in run_batches(self.pipe, self.sampling(index), output_type="latent"):
                pass


@contextmanager
def answering(denoiser: nn.Module, answer: Answer) -> Iterator[None]:
    """Let `answer` compute the outputs of the denoiser for whoever calls it, for a while.

    Within it the denoiser computes as ever.
    """
    own = denoiser.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with patched({denoiser: own}):
            output = answer(Call(args, kwargs))
        return _returned(output, in_tuple=kwargs.get("return_dict") is False)

    with patched({denoiser: forward}):
        yield


@dataclass
class _Output(BaseOutput):  # type: ignore[misc]  # diffusers has no types
    """An output as diffusers' denoisers return it."""

    sample: Tensor


def _returned(output: Tensor, *, in_tuple: bool) -> Any:
    return (output,) if in_tuple else _Output(sample=output)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: both halves in one batch, the unconditional one first.

    Attributes:
        scale: g of uncond + g · (cond - uncond).
        learned_variance: whether half of the output's channels are none of the prediction.
    """

    scale: float
    learned_variance: bool = False

    @classmethod
    def of(cls, pipe: DiffusionPipeline, denoiser: nn.Module) -> Guidance:
        """The guidance of a pipeline that is called without one."""
        parameter = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
        usual = 1.0 if parameter is None else parameter.default
        scale = generation_defaults(pipe).get("guidance_scale", usual)
        config = getattr(denoiser, "config", {})
        inputs, outputs = config.get("in_channels"), config.get("out_channels")
        return cls(float(scale), inputs is not None and outputs == 2 * inputs)

    def guided(self, output: Tensor, prompts: int) -> Tensor:
        """The prediction that the scheduler is given, float32, of so many prompts."""
        output = output.float()
        if self.learned_variance:
            output = output.chunk(2, dim=1)[0]
        if len(output) != 2 * prompts:
            return output
        unconditional, conditional = output.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)
