"""All that the search for a plan goes by: candidates, limits, calibration, an open journal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mezzotint.formats import FLOAT, parse_activation_format
from mezzotint.measuring import (
    InputCandidate,
    LayerCandidates,
    Measurements,
    Metric,
    Noise,
    PlanChange,
    Projections,
    SampleNoise,
    Task,
    chosen_metric,
    sample_noises,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.recipes.auto.candidates import candidate_formats, quantized_share
from mezzotint.recipes.auto.losses import Losses
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.program import IntegerProgram, integer_program
from mezzotint.recipes.auto.sensitivity import Candidates
from mezzotint.recipes.job import Job
from mezzotint.recipes.latency import Deadline, deadline
from mezzotint.recipes.option_values import selected_calls
from mezzotint.recipes.probing import Probing
from mezzotint.recipes.study import Measuring, Study
from mezzotint.runtime import Calibration


@dataclass(frozen=True, eq=False)
class Search:
    """One denoiser, what its layers may take, and what runs and keeps measurements.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        options: the recipe's switches.
        metric: what the plan makes least.
        encoding: rounding of all weights.
        candidates: of every layer, with its structures.
        program: what they cost, and the limits.
        timed: the limit on latency, if there is one.
        calibration: constants, ranges and moments of inputs.
        measuring: runs and journals measurements.
        probing: runs and journals probes.
    """

    study: Study
    options: Auto
    metric: Metric
    encoding: Encoding
    candidates: Candidates
    program: IntegerProgram
    timed: Deadline | None
    calibration: Calibration
    measuring: Measuring
    probing: Probing

    @property
    def probes(self) -> bool:
        """True where probes are to predict losses: those of noise only."""
        return isinstance(self.metric, Noise) and self.options.sensitivity != "measured"

    @property
    def verifies(self) -> bool:
        """True where the plan that is found is measured."""
        return not self.probes or self.options.sensitivity != "probes"

    def plan(self, choices: Mapping[str, Choice]) -> Plan:
        """The bare plan of some choices: what decides its bytes."""
        return Plan(dict(choices), self.study.job.model, encoding=self.encoding)

    def projections(
        self, count: int, calls: Sequence[Call] | None = None, plan: Plan | None = None
    ) -> Projections:
        """Probe every candidate around the floating model, or every weight around a plan.

        Args:
            count: of probes.
            calls: by default all.
            plan: the incumbent; None for the floating model.

        Raises:
            ProbeError: the model's backward pass fails.
        """
        candidates = {name: self._probed(name, plan) for name in self.candidates}
        return self.probing.projections(candidates, count, calls=calls, plan=plan)

    def _probed(self, layer: str, plan: Plan | None) -> LayerCandidates:
        candidates = self.candidates[layer]
        weights = {each.weight: each for each in candidates if each.quantized}
        inputs = [] if plan is not None else {each.activation for each in candidates} - {FLOAT}
        structures = next((each.structures for each in weights.values()), ())
        return LayerCandidates(
            tuple(weights),
            {name: self._rounded_input(layer, name) for name in sorted(inputs)},
            structures,
        )

    def _rounded_input(self, layer: str, activation: str) -> InputCandidate:
        rounding = parse_activation_format(activation)
        static = rounding is not None and rounding.static
        ranges = self.calibration.input_ranges.get(layer, ()) if static else ()
        return InputCandidate(rounding, ranges)

    def sample_noises(self, plans: Sequence[Plan]) -> list[list[float]]:
        """Noise of whole plans on every recorded sample, by really running them."""
        tasks = [Task(PlanChange(plan), SampleNoise()) for plan in plans]
        found = self.measuring.figures(tasks, "Measuring plans")
        return [sample_noises(figures) for figures in found]

    def plan_losses(self, plans: Sequence[Plan]) -> list[float]:
        """Loss of whole plans, by really running them."""
        if isinstance(self.metric, Noise):
            return [statistics.fmean(each) for each in self.sample_noises(plans)]
        return self.measuring.losses(
            [PlanChange(plan) for plan in plans], self.metric, "Measuring plans"
        )

    def measurements(self, losses: Losses) -> Measurements:
        """Loss of every candidate, of its weight and of its input."""
        return {
            name: {
                choice: {
                    "loss": losses.of(name, choice),
                    "weight": losses.weight(name, choice),
                    "input": losses.input(name, choice),
                }
                for choice in each
            }
            for name, each in self.candidates.items()
        }


@contextmanager
def prepared(job: Job, options: Auto) -> Iterator[Search]:
    """Record calls, look for structure, pose the program, calibrate; then open the journal.

    Raises:
        ModelError: there is nothing to quantize.
        InfeasibleBudgetError: the budget cannot be met; names the nearest that can. That is found
            before anything is measured.
        CalibrationError: weights or inputs hold NaN; the layer is named.
    """
    study = Study.of(
        job,
        bos=options.bos,
        shortcuts=options.shortcuts,
        momentum=None,
        selection=selected_calls(options.calls),
    )
    formats = candidate_formats(job.budget, options)
    candidates = study.structured(formats)
    timed = deadline(study, formats, options.profile, options.profile_batch)
    program = integer_program(study, candidates, quantized_share(job.budget, options), timed)
    encoding = Encoding(options.search, options.rounding, bias_correction=options.bias_correction)
    calibration = study.calibrated(candidates, encoding)
    with study.measuring(calibration, cache_bytes=options.cache_bytes) as measuring:
        yield Search(
            study=study,
            options=options,
            metric=chosen_metric(options.metric),
            encoding=encoding,
            candidates=candidates,
            program=program,
            timed=timed,
            calibration=calibration,
            measuring=measuring,
            probing=Probing(study, calibration, encoding, measuring.journal),
        )
