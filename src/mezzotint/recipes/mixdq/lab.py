"""Everything that is found out once, before any layer is measured."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mezzotint.calibration import input_ranges
from mezzotint.formats import FLOAT
from mezzotint.models import Call, Group, Layer, layer_groups, on_device, record_calls
from mezzotint.plan import CalibrationSettings, Choice, Encoding
from mezzotint.recipes.base import Job
from mezzotint.recipes.measuring import context, journal_header, quantizable
from mezzotint.recipes.mixdq.options import MixdqOptions
from mezzotint.recipes.structure import Structure, find_structure
from mezzotint.runtime import Calibration
from mezzotint.sensitivity import ImageReference, Journal, check_weights

NO_QUANTIZATION = 16


@dataclass(frozen=True, eq=False)
class Lab:
    """The model, calibrated once for all widths, and the journal of what is measured on it.

    Attributes:
        layers: the layers that can be packed, in the order of execution.
        groups: what each of them shapes.
        structure: constant first tokens and split inputs.
        calls: the denoiser's calls on the calibration prompts.
        images: the floating pipeline's images of the calibration prompts.
        calibration: ranges and constants; ranges give the scale of any width.
    """

    job: Job
    options: MixdqOptions
    layers: tuple[Layer, ...]
    groups: Mapping[str, Group]
    structure: Structure
    calls: tuple[Call, ...]
    images: ImageReference
    calibration: Calibration
    journal: Journal

    @property
    def encoding(self) -> Encoding:
        """How the weights of all layers are rounded."""
        return Encoding(self.options.search)

    @property
    def settings(self) -> CalibrationSettings:
        """How ranges and constants were found."""
        return CalibrationSettings(self.job.sampling, len(self.calls), self.options.momentum)

    def choice(self, layer: str, weight_bits: int, act_bits: int | None) -> Choice:
        """These widths for `layer`, with its structure; None leaves its input floating."""
        activation = FLOAT if act_bits is None else self.options.activation_format(act_bits)
        weight = self.options.weight_format(weight_bits)
        return self.structure.applied(layer, Choice(weight, activation))

    @property
    def quantizes_inputs(self) -> bool:
        """Whether the budget asks for it."""
        return self.job.budget.act_bits < NO_QUANTIZATION


@contextmanager
def open_lab(job: Job, options: MixdqOptions) -> Iterator[Lab]:
    """Record, look for structure, calibrate; the journal stays open meanwhile.

    Raises:
        ModelError: there is nothing to quantize.
        CalibrationError: weights, inputs or images hold NaN; the layer is named.
    """
    layers = quantizable(job)
    check_weights(job.denoiser, [layer.name for layer in layers])
    groups = layer_groups(layers, options.content)
    images = ImageReference.of(job.pipe, job.sampling)
    calls = on_device(record_calls(job.pipe, job.sampling), job.denoiser)
    structure = find_structure(job, layers, calls, bos=options.bos, shortcuts=options.shortcuts)
    calibration = _calibrated(job, options, layers, structure, calls)
    header = journal_header(job, calls, Encoding(options.search)) | {
        "options": _measuring_options(options),
        # What follows the denoiser, a VAE or the later steps, shows here only.
        "images": hashlib.sha256(images.images.numpy().tobytes()).hexdigest()[:16],
        "structure": [sorted(structure.constants), dict(sorted(structure.splits.items()))],
    }
    with Journal(job.journal, header) as journal:
        yield Lab(job, options, layers, groups, structure, calls, images, calibration, journal)


def _calibrated(
    job: Job,
    options: MixdqOptions,
    layers: tuple[Layer, ...],
    structure: Structure,
    calls: tuple[Call, ...],
) -> Calibration:
    """Ranges of all inputs, where they are static, and the constants of the first tokens."""
    calibration = Calibration(tensors=structure.constants)
    widest = options.activation_format(max(options.activation_bits))
    choice = Choice(options.weight_format(8), widest)
    if job.budget.act_bits >= NO_QUANTIZATION or not choice.static:
        return calibration
    choices = {layer.name: structure.applied(layer.name, choice) for layer in layers}
    ranges = input_ranges(job.denoiser, choices, calls, options.momentum, calibration.tensors)
    return dataclasses.replace(calibration, input_ranges=ranges)


def _measuring_options(options: MixdqOptions) -> dict[str, object]:
    """The options that measurements depend on; the others may change between runs."""
    fields = ("symmetric", "activation", "momentum", "bos", "shortcuts", "content")
    return {name: getattr(options, name) for name in fields}


def lab_context(lab: Lab) -> dict[str, object]:
    """How the plan came to be, as JSON values."""
    shown = dataclasses.asdict(lab.options)
    return context(lab.job) | {
        "recipe": "mixdq",
        "options": {name: list(v) if isinstance(v, tuple) else v for name, v in shown.items()},
        "notes": list(lab.structure.notes),
    }
