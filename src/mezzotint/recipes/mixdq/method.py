"""MixDQ applied to one study: groups, candidate choices, and what compares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT
from mezzotint.measuring import ImageError
from mezzotint.models import LayerGroup, layer_groups
from mezzotint.plan import Choice, Encoding
from mezzotint.recipes.job import Job
from mezzotint.recipes.mixdq.options import MixDQ
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.study import Measuring, Study
from mezzotint.runtime import Calibration

NO_QUANTIZATION = 16


@dataclass(frozen=True, eq=False)
class Method:
    """The method at work: calibrated once for all widths, its journal open.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        options: the method's switches.
        groups: layer → what it shapes.
        calibration: ranges and constants; a range gives the scale of any width.
        measuring: runs and journals measurements.
    """

    study: Study
    options: MixDQ
    groups: Mapping[str, LayerGroup]
    calibration: Calibration
    measuring: Measuring

    def choice(self, layer: str, weight_bits: int, act_bits: int | None) -> Choice:
        """These widths for `layer`, with its structure; None leaves its input floating."""
        activation = FLOAT if act_bits is None else self.options.activation_format(act_bits)
        weight = self.options.weight_format(weight_bits)
        return self.study.structures.applied(layer, Choice(weight, activation))

    @property
    def encoding(self) -> Encoding:
        """Rounding of the weights of all layers."""
        return encoding_of(self.options)

    @property
    def quantizes_inputs(self) -> bool:
        """True where the budget asks for it."""
        return quantizes_inputs(self.study.job)

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
def prepared(job: Job, options: MixDQ) -> Iterator[Method]:
    """Record, look for structure, calibrate; the journal stays open meanwhile.

    Raises:
        ModelError: there is nothing to quantize.
        UsageError: images are to be compared, and there is no pipeline to make them.
        CalibrationError: weights, inputs or images hold NaN; the layer is named.
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
    )
    groups = layer_groups(study.layers, options.content)
    widest = options.activation_format(max(options.activation_bits))
    choice = Choice(options.weight_format(8), widest if quantizes_inputs(job) else FLOAT)
    calibration = study.calibrated(study.structured([choice]), encoding_of(options))
    with study.measuring(calibration, cache_bytes=options.cache_bytes) as measuring:
        yield Method(study, options, groups, calibration, measuring)


def encoding_of(options: MixDQ) -> Encoding:
    """Rounding of the weights of all layers."""
    return Encoding(options.search, options.rounding)


def quantizes_inputs(job: Job) -> bool:
    """True where the budget asks for quantized inputs."""
    return job.budget.act_bits < NO_QUANTIZATION


def selection_prompts(job: Job, options: MixDQ) -> int:
    """Number of prompts on which plans are compared: those that there are, at most."""
    available = len(job.sampling.prompts) if job.sampling else options.selection_prompts
    return min(options.selection_prompts, available)
