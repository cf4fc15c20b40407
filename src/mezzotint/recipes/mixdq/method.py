"""MixDQ applied to one study: groups, candidate choices, and what compares them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT, parse_weight_format
from mezzotint.measuring import ImageError
from mezzotint.models import LayerGroup, layer_groups
from mezzotint.plan import Choice, Encoding
from mezzotint.recipes.job import Job
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.mixdq.options import MixDQ
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration

NO_QUANTIZATION = 16


@dataclass(frozen=True, eq=False)
class Setting:
    """The method before anything is calibrated: enough to see whether the budget can be met.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        options: the method's switches.
        groups: layer → what it shapes.
    """

    study: Study
    options: MixDQ
    groups: Mapping[str, LayerGroup]

    @classmethod
    def of(cls, job: Job, options: MixDQ) -> Setting:
        """Record calls, look for structure, and group the layers.

        Raises:
            ModelError: there is nothing to quantize.
            UsageError: images are to be compared, and there is no pipeline to make them.
            CalibrationError: weights hold NaN; the layer is named.
        """
        if options.compares_images and job.pipe is None:
            raise UsageError(
                "metric: decoupled compares images, which a bare module does not make; use sqnr"
            )
        study = Study.of(
            job,
            bos=options.bos,
            shortcuts=options.shortcuts,
            momentum=options.momentum,
            selection=selected_calls(options.calls),
            restrictions=options.restrictions,
        )
        return cls(study, options, layer_groups(study.layers, options.content))

    def choice(self, layer: str, weight_bits: int, act_bits: int | None) -> Choice:
        """These widths for `layer`, with its structure; None leaves its input floating.

        A pinned layer has the pinned weight, whatever the width.
        """
        pin = self.study.restrictions.pin(layer)
        activation = FLOAT if act_bits is None else self.options.activation_format(act_bits)
        weight = self.options.weight_format(weight_bits) if pin is None else pin.weight
        return self.study.structures.applied(layer, Choice(weight, activation))

    def weight_widths(self, layer: str) -> tuple[int, ...]:
        """Candidate widths of a layer's weight: that of the pinned format alone, where it has one.

        A fraction of a bit is rounded up: what is counted are stored bytes, or else whole bits.
        """
        pin = self.study.restrictions.pin(layer)
        if pin is not None:
            pinned = parse_weight_format(pin.weight)
            assert pinned is not None, "a layer that is pinned to float is excluded"
            return (math.ceil(pinned.bits),)
        content = self.groups[layer] is LayerGroup.CONTENT
        options = self.options
        return options.content_weight_bits if content else options.quality_weight_bits

    def input_widths(self, layer: str, widths: Sequence[int]) -> tuple[int, ...]:
        """Those of some widths that a layer's input may have: none where it is pinned to float."""
        pin = self.study.restrictions.pin(layer)
        if pin is None or pin.activation is None:
            return tuple(widths)
        every = self.options.activation_bits
        return tuple(w for w in every if self.options.activation_format(w) == pin.activation)

    @property
    def encoding(self) -> Encoding:
        """Rounding of the weights of all layers."""
        return Encoding(self.options.search, self.options.rounding)

    @property
    def quantizes_inputs(self) -> bool:
        """True where the budget asks for it."""
        return self.study.job.budget.act_bits < NO_QUANTIZATION


@dataclass(frozen=True, eq=False)
class Method(Setting):
    """The method at work: calibrated once for all widths, its journal open.

    Attributes:
        calibration: ranges and constants; a range gives the scale of any width.
        measuring: runs and journals measurements.
    """

    calibration: Calibration
    measuring: Measuring

    @property
    def image_error(self) -> ImageError:
        """Metric by which whole plans are compared."""
        return ImageError(selection_prompts(self.study.job, self.options))

    def context(self) -> dict[str, object]:
        """Origin of the plan, as JSON values."""
        shown = dataclasses.asdict(self.options)
        return self.study.context() | {
            "recipe": "mixdq",
            "options": {name: list(v) if isinstance(v, tuple) else v for name, v in shown.items()},
        }


@contextmanager
def calibrated(setting: Setting) -> Iterator[Method]:
    """Calibrate; the journal stays open meanwhile.

    Raises:
        CalibrationError: inputs or images hold NaN; the layer is named.
    """
    study, options = setting.study, setting.options
    widest = options.activation_format(max(options.activation_bits))
    choice = Choice(options.weight_format(8), widest if setting.quantizes_inputs else FLOAT)
    calibration = study.calibrated(study.structured([choice]), setting.encoding)
    with study.measuring(calibration, cache_bytes=options.cache_bytes) as measuring:
        yield Method(study, options, setting.groups, calibration, measuring)


def selection_prompts(job: Job, options: MixDQ) -> int:
    """Number of prompts on which plans are compared: those that there are, at most."""
    available = len(job.sampling) if job.sampling else options.selection_prompts
    return min(options.selection_prompts, available)
