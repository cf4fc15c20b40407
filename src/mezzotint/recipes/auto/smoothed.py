"""Smoothed inputs: the layers whose input is worth smoothing, and their candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mezzotint.calibration import input_noises_together, observe_structures
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice, Structure, Tensors
from mezzotint.recipes.auto.names import is_smoothed
from mezzotint.recipes.auto.sensitivity import Candidates
from mezzotint.recipes.study import Study
from mezzotint.runtime import Smoothing, shape_of
from mezzotint.runtime.layer_tensors import dotted, places
from mezzotint.runtime.structures.smoothing import EXPONENT

SMOOTHING = "Smoothing"
"""Label of the progress of that stage."""

PASSES = 2
"""Runs of all calls that it takes: for the channels' magnitudes, and for the rounding errors."""

WORTH = 2.0
"""An input is worth smoothing where its rounding errs so many times less then (3 dB).

Every candidate has to be encoded: nobody would wait for those that cannot matter.
"""


@dataclass(frozen=True, eq=False)
class SmoothedInputs:
    """Layers whose input may be smoothed.

    Attributes:
        structures: layer → its structures then, smoothing included, but for scales of its input.
        tensors: layer → what they have calibrated.
        gains: layer → how many times less the rounding of its input errs.
    """

    structures: Mapping[str, tuple[Structure, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensors] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)

    def candidates(self, others: Candidates) -> dict[str, tuple[Choice, ...]]:
        """Layer → its candidates of quantized inputs, smoothed."""
        return {
            name: tuple(
                each.with_structures(*structures, *each.input_scales)
                for each in others[name]
                if each.activation != FLOAT
            )
            for name, structures in self.structures.items()
        }

    def exponents(self, study: Study, layer: str) -> tuple[tuple[int, ...], ...]:
        """The exponents of each quantizer of a layer."""
        tensors, shape = self.tensors[layer], shape_of(study.job.denoiser.get_submodule(layer))
        return tuple(
            tuple(tensors[dotted(place.path, EXPONENT)].tolist())
            for place in places(self.structures[layer], shape)
            if isinstance(place.structure, Smoothing)
        )

    def reasons(self, choices: Mapping[str, Choice]) -> dict[str, str]:
        """Layer → what smoothing does for it, of the layers that have it in a plan."""
        return {
            name: f"smoothed input: its rounding errs {10 * math.log10(gain):.3g} dB less"
            for name, gain in self.gains.items()
            if is_smoothed(choices[name])
        }


def smoothed_inputs(study: Study, candidates: Candidates) -> SmoothedInputs:
    """Look at the recorded calls for inputs that are worth smoothing.

    Args:
        study: its denoiser is looked at.
        candidates: of every layer; the first quantized input of each is compared.
    """
    plain = {
        name: next(each for each in choices if each.activation != FLOAT)
        for name, choices in candidates.items()
        if any(each.activation != FLOAT for each in choices)
    }
    if not plain:
        return SmoothedInputs()
    denoiser, calls = study.job.denoiser, study.calls
    structures = {
        name: (*each.with_floating_input.structures, Smoothing()) for name, each in plain.items()
    }
    found = observe_structures(
        denoiser,
        structures,
        calls,
        graph=study.graph,
        known=study.structures.constants,
        label=SMOOTHING,
    )
    smooth = {
        name: plain[name].with_structures(*structures[name], *plain[name].input_scales)
        for name in found.tensors
    }
    plain = {name: plain[name] for name in smooth}
    asked = [(plain, study.structures.constants), (smooth, found.tensors)]
    before, after = input_noises_together(denoiser, asked, calls, label=SMOOTHING)
    gains = {
        name: before[name] / after[name]
        for name in smooth
        if before[name] > 0 and after[name] * WORTH <= before[name]
    }
    return SmoothedInputs(
        {name: structures[name] for name in gains},
        {name: found.tensors[name] for name in gains},
        gains,
    )
