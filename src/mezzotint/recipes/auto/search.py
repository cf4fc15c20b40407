"""All that the search for a plan goes by: candidates, limits, calibration, an open journal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mezzotint.measuring import (
    InputCandidate,
    LayerCandidates,
    Measurements,
    Metric,
    Noise,
    PlanChange,
    Projections,
    SampleNoise,
    StepTable,
    Task,
    sample_noises,
)
from mezzotint.models import Call, component_names
from mezzotint.plan import Budget, Choice, Encoding, Plan
from mezzotint.recipes.auto.divided_samples import DividedSamples
from mezzotint.recipes.auto.estimates import clipped_name
from mezzotint.recipes.auto.labels import Lesson, lesson
from mezzotint.recipes.auto.losses import ByFormat, Losses
from mezzotint.recipes.auto.names import input_name, is_smoothed
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.posing import posed
from mezzotint.recipes.auto.probed_layers import around_choice, around_floating
from mezzotint.recipes.auto.program import IntegerProgram
from mezzotint.recipes.auto.sensitivity import Candidates, Unit, losses_of
from mezzotint.recipes.auto.smoothed import SmoothedInputs
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.latency import Deadline
from mezzotint.recipes.probing import Probing
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration, InputRange, shape_of


@dataclass(frozen=True, eq=False)
class Search:
    """One denoiser, what its layers may take, and what runs and keeps measurements.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        samples: recorded calls: which to fit weights to, and which to judge plans on.
        options: the recipe's switches.
        metric: what the plan makes least.
        encoding: rounding of all weights; its clip is that of static inputs at first.
        formats: between which layers without a pin choose, without structures of layers.
        candidates: of every layer, with its structures.
        program: what they cost, and the limits.
        timed: the limit on latency, if there is one.
        smoothed: layers whose input may be smoothed.
        calibration: constants and ranges of inputs, of smoothed ones as well; moments of the calls
            to fit to.
        ranges: clip → ranges of static inputs under it.
        clips: layer → clip of its static input, where it is another than that of the encoding.
            Smoothed inputs keep the latter.
        measuring: runs and journals measurements.
        probing: runs and journals probes.
        lesson: what labels have taught, where there are any.
    """

    study: Study
    samples: DividedSamples
    options: Auto
    metric: Metric
    encoding: Encoding
    formats: tuple[Choice, ...]
    candidates: Candidates
    program: IntegerProgram
    timed: Deadline | None
    smoothed: SmoothedInputs
    calibration: Calibration
    ranges: Mapping[str, Mapping[str, tuple[InputRange, ...]]]
    measuring: Measuring
    probing: Probing
    clips: Mapping[str, str] = field(default_factory=dict)
    lesson: Lesson = field(default_factory=Lesson)

    @property
    def probes(self) -> bool:
        """True where probes are to predict losses: those of noise only."""
        return isinstance(self.metric, Noise) and self.options.sensitivity != "measured"

    @property
    def verifies(self) -> bool:
        """True where the plan that is found is measured."""
        return not self.probes or self.options.sensitivity != "probes"

    @property
    def tries_biases(self) -> bool:
        """True where whole plans are run to see whether corrected biases help."""
        noise = isinstance(self.metric, Noise)
        return noise and self.verifies and self.options.bias_correction == "tried"

    def under(self, budget: Budget) -> Search:
        """The same search for a plan of another budget, which differs in its bytes alone.

        Raises:
            InfeasibleBudgetError: it cannot be met; names the nearest that can.
        """
        study = replace(self.study, job=replace(self.study.job, budget=budget))
        program = posed(study, self.options, self.candidates, self.formats, self.timed)
        told = lesson(study, self.options, self.measuring, program)
        return replace(
            self,
            study=study,
            program=replace(program, emphasis=told.emphasis),
            probing=replace(self.probing, study=study),
            lesson=told,
        )

    def clipped(self, clips: Mapping[str, str]) -> Search:
        """The same search with these clips of static inputs, by layer."""
        if not clips:
            return self
        found = {name: self.ranges[clip][name] for name, clip in clips.items()}
        calibration = replace(
            self.calibration, input_ranges={**self.calibration.input_ranges, **found}
        )
        return replace(
            self,
            calibration=calibration,
            measuring=self.measuring.recalibrated(calibration),
            probing=replace(self.probing, calibration=calibration),
            clips=clips,
        )

    def plan(self, choices: Mapping[str, Choice]) -> Plan:
        """The bare plan of some choices: what decides its bytes."""
        encodings = {
            name: replace(self.encoding, clip=clip)
            for name, clip in self.clips.items()
            if choices[name].static and not is_smoothed(choices[name])
        }
        return Plan(
            dict(choices),
            self.study.job.model,
            encoding=self.encoding,
            encodings=encodings,
            components=component_names(self.study.job.denoiser),
        )

    def measured(self, units: Sequence[Unit]) -> tuple[ByFormat, ByFormat]:
        """Losses of some weights and of some inputs, by really running each."""
        clips = dict.fromkeys(self.candidates, self.encoding.clip) | dict(self.clips)
        changes = [unit.change(self.encoding, clips) for unit in units]
        return losses_of(units, self.measuring.losses(changes, self.metric))

    def projections(
        self,
        count: int,
        calls: Sequence[Call] | None = None,
        plan: Plan | None = None,
    ) -> Projections:
        """Probe every candidate around the floating model, or every weight around a plan.

        Args:
            count: of probes.
            calls: by default all that judge.
            plan: the incumbent; None for the floating model.

        Raises:
            ProbeError: the model's backward pass fails.
        """
        candidates = {
            name: self._probed(name, each, plan) for name, each in self.candidates.items()
        }
        calls = self.samples.judging if calls is None else calls
        return self.probing.projections(candidates, count, calls=calls, plan=plan)

    def _probed(
        self, name: str, candidates: Sequence[Choice], plan: Plan | None
    ) -> LayerCandidates:
        if plan is not None:
            return around_choice(candidates, plan[name])
        rounded: dict[str, InputCandidate] = {}
        for _, choice in sorted({input_name(each): each for each in candidates}.items()):
            rounded |= self._rounded(name, choice)
        return around_floating(candidates, rounded)

    def _rounded(self, name: str, choice: Choice) -> dict[str, InputCandidate]:
        """The roundings of a layer's input under a choice, by the names that probes have for them.

        A static one has one for each clip, unless it is smoothed.
        """
        activation, key = choice.activation_format, input_name(choice)
        if activation is None:
            return {}
        known = self.calibration.under({name: choice})
        shape = shape_of(self.study.job.denoiser.get_submodule(name))
        steps = StepTable.each_of(choice.structures, shape, known.tensors.get(name, {}))
        if is_smoothed(choice):
            exponents = self.smoothed.exponents(self.study, name)
            ranges = known.input_ranges.get(name, ())
            return {key: InputCandidate(activation, ranges, exponents, steps)}
        if not activation.static:
            return {key: InputCandidate(activation, steps=steps)}
        return {
            clipped_name(key, clip): InputCandidate(activation, ranges[name])
            for clip, ranges in self.ranges.items()
        }

    def sample_noises(self, plans: Sequence[Plan]) -> list[list[float]]:
        """Noise of whole plans on every sample that judges, by really running them."""
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
        """Loss of every candidate by the metric, and what its weight and its input are of it."""
        return {
            name: {
                choice: {
                    self.metric.kind: losses.of(name, choice),
                    "weight": losses.weight(name, choice),
                    "input": losses.input(name, choice),
                }
                for choice in each
            }
            for name, each in self.candidates.items()
        }
