"""Losses that probes predict for every format of every layer, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mezzotint.measuring import Projections
from mezzotint.recipes.auto.losses import Losses

_CLIP = " clipped at "
"""Between a static format and its clip, in the name of an input that is probed."""

_TINY = float(np.finfo(np.float32).tiny)


def clipped_name(activation: str, clip: str) -> str:
    """Name of an input of a static format at a clip."""
    return f"{activation}{_CLIP}{clip}"


@dataclass(frozen=True, eq=False)
class Estimates:
    """Projections of all candidates around the floating model, as losses.

    Attributes:
        projections: of every weight and input format alone.
    """

    projections: Projections

    @cached_property
    def losses(self) -> Losses:
        """The mean over all probes; of a static input at its best clip."""
        return self._losses(np.ones(len(self.projections)))

    @property
    def rows(self) -> Iterator[tuple[tuple[str, bool, str], NDArray[np.float64]]]:
        """Layer, whether its input is meant, and format; with the noise by each probe."""
        return zip(self._keys, self._squares, strict=True)

    def resampled(self, generator: np.random.Generator, count: int) -> Iterator[Losses]:
        """Losses of as many probes drawn with replacement, for a bootstrap; the clips stay."""
        probes = len(self.projections)
        for _ in range(count):
            drawn = generator.integers(probes, size=probes)
            yield self._losses(np.bincount(drawn, minlength=probes).astype(np.float64))

    @cached_property
    def clips(self) -> dict[str, str]:
        """Layer → the clip of least noise of its static input, for layers that may have one."""
        found: dict[str, str] = {}
        for layer, inputs in self.projections.inputs.items():
            noises = {
                key.partition(_CLIP)[2]: self.projections.noise_of_input(layer, key)
                for key in inputs
                if _CLIP in key
            }
            if noises:
                found[layer] = min(noises, key=lambda clip: noises[clip])
        return found

    def _losses(self, times: NDArray[np.float64]) -> Losses:
        weights: dict[str, dict[str, float]] = {name: {} for name in self.projections.weights}
        inputs: dict[str, dict[str, float]] = {name: {} for name in self.projections.inputs}
        noises = self._squares @ times / times.sum()
        for (layer, of_input, name), noise in zip(self._keys, noises, strict=True):
            (inputs if of_input else weights)[layer][name] = float(noise)
        return Losses(weights, inputs)

    @cached_property
    def _keys(self) -> tuple[tuple[str, bool, str], ...]:
        """Layer, whether its input is meant, and format: the rows of `_squares`."""
        found = self.projections
        weights = [(name, False, key) for name, each in found.weights.items() for key in each]
        inputs = {
            (name, True, key.partition(_CLIP)[0]): None
            for name, each in found.inputs.items()
            for key in each
        }
        return (*weights, *inputs)

    @cached_property
    def _squares(self) -> NDArray[np.float64]:
        """Noise that each probe sees of each change, [changes, probes]."""
        rows = []
        for layer, of_input, name in self._keys:
            if not of_input:
                rows.append(self.projections.weights[layer][name])
                continue
            found = self.projections.inputs[layer]
            rows.append(found[name if name in found else clipped_name(name, self.clips[layer])])
        power = np.maximum(self.projections.energy, _TINY)
        return np.square(np.array(rows).reshape(len(rows), len(power))) / power
