"""MPQ-DM applied to one study: which layers have the nominal widths, and in which structures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mezzotint.calibration import calibrated
from mezzotint.calibration.step_ranges import calls_by_timestep
from mezzotint.errors import ModelError, UsageError
from mezzotint.models import Call, Layer
from mezzotint.plan import CallSelection, Choice, Encoding, Plan, Structure
from mezzotint.recipes.found_structures import probing_calls
from mezzotint.recipes.job import Job
from mezzotint.recipes.mpqdm.exempt_layers import Exemption, exemptions
from mezzotint.recipes.mpqdm.options import MPQDM
from mezzotint.recipes.mpqdm.widths import Widths, nominal_widths
from mezzotint.recipes.outlier_channels import ChannelSearch
from mezzotint.recipes.smoothed_by_norms import smoothed_by_norms
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration, Smoothing, StepScales, StepWidths

EVERY_CALL = 10_000
"""Calls to keep at the most: more than any sampler's steps, so those of every step are kept."""


@dataclass(frozen=True, eq=False)
class Method:
    """The method at work: calls of every denoising step are recorded, exceptions are known.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        options: the method's switches.
        widths: of the layers that are no exception.
        exempt: layer → its exception.
    """

    study: Study
    options: MPQDM
    widths: Widths
    exempt: Mapping[str, Exemption]

    @property
    def narrow(self) -> tuple[Layer, ...]:
        """The layers of the nominal widths."""
        return tuple(layer for layer in self.study.layers if layer.name not in self.exempt)

    @cached_property
    def structures(self) -> tuple[Structure, ...]:
        """Structures of every one of them, within any constant tokens."""
        smoothing = (Smoothing(),) if self.options.smoothing else ()
        if self.widths.activation is None or self.options.inputs != "step":
            return smoothing
        steps = calls_by_timestep(self.study.job.denoiser, self.study.calls)
        return (*smoothing, StepScales(len(steps)))

    @cached_property
    def search(self) -> ChannelSearch:
        """The search for channels of more bits and of fewer."""
        options = self.options
        return ChannelSearch(options.search, options.channels, options.plus, options.one_bit_levels)

    @property
    def encoding(self) -> Encoding:
        """Rounding of all weights, before any training."""
        return Encoding(self.options.ranges, self.options.rounding, self.search.order)

    def plan(
        self,
        weights: Mapping[str, str] | None = None,
        step_bits: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Plan:
        """The bare plan of some weight formats: what decides its bytes.

        Args:
            weights: layer → its weight format, for all that are no exception; by default one width
                for all channels.
            step_bits: layer → bits of its input at each timestep, for the same; by default those of
                the budget at all of them.
        """
        bits, search = self.widths.weight, self.search
        if weights is None:
            weights = {
                layer.name: search.format_name(bits, layer.out_features, 0) for layer in self.narrow
            }
        choices = {name: each.choice for name, each in self.exempt.items()}
        widths = step_bits or {}
        choices |= {n: self._choice(n, weight, widths.get(n)) for n, weight in weights.items()}
        ordered = {layer.name: choices[layer.name] for layer in self.study.layers}
        if self.options.smoothing_norms:
            ordered = smoothed_by_norms(ordered, self.study.graph)
        return self.study.settled(Plan(ordered, self.study.job.model, encoding=self.encoding))

    def _choice(self, layer: str, weight: str, bits: tuple[int, ...] | None) -> Choice:
        plain = self.study.structures.applied(layer, Choice(weight))
        structures = plain.structures + self.structures
        if bits is None:
            return Choice(weight, self.widths.input_format(self.options), structures)
        return Choice(weight, "uint8/step", (*structures[:-1], StepWidths(len(bits), bits)))

    def calibrated(self, plan: Plan) -> Calibration:
        """All that the plan's structures, inputs and encoding need of the recorded calls."""
        job = self.study.job
        probes: tuple[Call, ...] = ()
        if job.calls is None and job.pipe is not None and job.sampling is not None:
            probes = probing_calls(job.pipe, job.denoiser, job.sampling)
        return calibrated(job.denoiser, plan, self.study.calls, probes)

    def context(self) -> dict[str, object]:
        """Origin of the plan, as JSON values."""
        return self.study.context() | {
            "recipe": "mpqdm",
            "options": dataclasses.asdict(self.options),
            "exceptions": {
                "8 bits": sorted(n for n, each in self.exempt.items() if each.choice.quantized),
                "floating": sorted(
                    n for n, each in self.exempt.items() if not each.choice.quantized
                ),
            },
        }


def prepared(job: Job, options: MPQDM) -> Method:
    """Record calls of every denoising step, look for structure, and name the exceptions.

    Raises:
        UsageError: the budget names widths that the method does not have, or there are earlier
            measurements.
        ModelError: there is nothing to quantize, or exceptions only.
        CalibrationError: weights hold NaN; the layer is named.
    """
    widths = nominal_widths(job.budget, options)
    if job.measuring.known is not None:
        raise UsageError("measurements: recipe 'mpqdm' measures no layer; leave them out")
    samples = options.samples
    study = Study.of(
        job,
        bos=options.bos,
        shortcuts="none",
        momentum=None,
        selection=None if samples is None else CallSelection(EVERY_CALL, samples),
    )
    inputs = widths.activation is not None
    exempt = exemptions(study.layers, options.shortcuts, inputs=inputs)
    if len(exempt) == len(study.layers):
        raise ModelError(
            f"{job.model}: every layer is an exception, and none is left for few bits; use recipe "
            "'auto'"
        )
    return Method(study, options, widths, exempt)
