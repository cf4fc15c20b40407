"""Outlook on the whole work of the recipe, told before it begins: stage by stage, in seconds.

Every stage takes so many runs of the recorded calls, forward or backward, or encodes so many
weights: that is counted here, and a rehearsal tells what each takes. What depends on what will be
found is told as a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mezzotint._progress import OVERALL, following
from mezzotint._progress_lines import duration
from mezzotint.allocation import FEWEST_PROJECTIONS
from mezzotint.calibration import needing_moments, work_of_moments
from mezzotint.calibration.gram_matrices import LABEL as GATHERING
from mezzotint.formats import FLOAT
from mezzotint.measuring import MOST_PROBES, WATCHED, CandidateSeconds, Forecast, Metric, at_most
from mezzotint.models import text_readers
from mezzotint.plan import FULL, Choice, Encoding, Plan
from mezzotint.recipes.auto.candidates import input_formats
from mezzotint.recipes.auto.divided_samples import FEWEST, HELD_OUT
from mezzotint.recipes.auto.expected_calls import ExpectedCalls, rows_of_images, steps_of
from mezzotint.recipes.auto.held_out import EVERY
from mezzotint.recipes.auto.held_out import FEWEST as FEWEST_HELD
from mezzotint.recipes.auto.names import is_per_step
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.quality import MOST_PLANS
from mezzotint.recipes.auto.refit import SHARE
from mezzotint.recipes.auto.rehearsal import Rehearsal, rehearsed_candidates
from mezzotint.recipes.auto.smoothed import PASSES, SMOOTHING
from mezzotint.recipes.auto.verification import MOST_MEASURED
from mezzotint.recipes.found_structures import LOOKING_FOR_CONSTANTS, alike_at_first, pads_left
from mezzotint.recipes.job import Job
from mezzotint.recipes.single_noises import PROBES as LABELLED_PROBES


@dataclass(frozen=True, eq=False)
class Outlook:
    """Stages of the work, and what they will take.

    Attributes:
        job: what was asked for.
        options: of the recipe.
        metric: what the plan makes least.
        encoding: of all candidate weights.
        rehearsal: one call.
        calls: that will be recorded.
        budgets: how many share what is measured; None for one whose plan is packed as well.
    """

    job: Job
    options: Auto
    metric: Metric
    encoding: Encoding
    rehearsal: Rehearsal
    calls: ExpectedCalls
    budgets: int | None = None

    @property
    def text(self) -> str:
        """Lines for people: what all takes, stage by stage, and what may be more."""
        stages = self.stages
        each = ", ".join(f"{name.lower()} {duration(taken)}" for name, taken in stages.items())
        known = self.job.measuring.known is not None or self._begun
        less = ", less what was measured before" if known else ""
        lines = [f"{OVERALL} {duration(sum(stages.values()))}{less}: {each}"]
        if any(later.units for later in self.later.values()):
            lines.append(at_most(self.later))
        return "\n".join(lines)

    @cached_property
    def stages(self) -> dict[str, float]:
        """Label of a stage → seconds, in order."""
        found: dict[str, float] = {}
        for name, seconds in (*self._before(), *self._search(), *self._after()):
            found[name] = found.get(name, 0.0) + seconds
        return found

    @property
    def later(self) -> dict[str, Forecast]:
        """Work that follows where the plan is in doubt, in units."""
        if not self.probes:
            return {}
        options, rounds = self.options, 1 + self._exchanges
        probes = 0 if options.refit else rounds * (MOST_PROBES - self.probes)
        measured = int(self._exchanges)  # the plan with them
        if options.sensitivity == "hybrid" and not options.refit:
            measured += MOST_MEASURED
        measured += MOST_PLANS * self._goal
        smoothed = len(self.rehearsal.layers) if options.smoothing and self._quantizes else 0
        run = self._judging * self.rehearsal.row
        once = self._candidates.encoding + self._candidates.comparing(self.probes)
        each = once / max(1, len(self.rehearsal.layers))
        return {
            "more probes": Forecast(probes, self._probing(self.probes) / self.probes),
            f"measurements on {self.calls.count} calls": Forecast(
                measured, run, run if measured else 0.0
            ),
            "layers smoothed": Forecast(smoothed, each),
        }

    @property
    def probes(self) -> int:
        """Probes at the least; 0 where all is measured."""
        options = self.options
        if self.metric.kind != "noise" or options.sensitivity == "measured":
            return 0
        if self.rehearsal.backward is None:
            return 0
        if options.refit is not None:
            return max(2 * FEWEST_PROJECTIONS, math.ceil(options.probes / SHARE))
        return options.probes

    def _before(self) -> Iterator[tuple[str, float]]:
        """Stages before the search."""
        job, options, once = self.job, self.options, self._watched
        if not job.calls:
            yield "Recording", self.calls.recorded * self.rehearsal.row
        if self._looks_for_constants:
            sampling = None if job.calls else job.sampling
            others = sampling is not None and alike_at_first(sampling)
            more = 2 * rows_of_images(self.rehearsal, 2) if others else 0
            yield LOOKING_FOR_CONSTANTS, once + more * self.rehearsal.row
        if options.mixtures and job.budget.latency is None:
            yield "Mixing widths", once + self._encoded(len(options.mixtures))
        if options.smoothing and self._quantizes:
            yield SMOOTHING, PASSES * once
        if self._fits and self._held:
            yield HELD_OUT, self._held * self.rehearsal.row
        yield from self._gathering(self.calls.rows - (self._held if self._apart else 0))
        if static := sum(name.endswith("/tensor") for name in self._inputs):
            runs = sum(1 if clip == FULL else 2 for clip in options.clips)
            yield "Ranges of inputs", static * once * runs
        if any(map(is_per_step, self._inputs)):
            yield "Calibrating steps", 2 * once

    def _search(self) -> Iterator[tuple[str, float]]:
        """Stages until the plan is there."""
        if self.options.labels is not None and self.rehearsal.backward is not None:
            yield "Probing", self._probing(LABELLED_PROBES)
        if self.probes:
            rounds = 1 + self._exchanges
            yield "Probing", rounds * self._probing(self.probes) + self._candidates.encoding
        else:
            units = len(self.rehearsal.layers) * (len(self._weights) + self._rounded_inputs)
            yield "Measuring", (units + 1) * self._run + self._candidates.encoding
        if self._plans:
            yield "Measuring plans", self._plans * self._run * WATCHED
        if self._quantizes:
            yield "Spread of inputs", (self.budgets or 1) * self._watched

    def _after(self) -> Iterator[tuple[str, float]]:
        """Stages after the search."""
        if self.options.tune_minutes:
            yield "Tuning", 60 * self.options.tune_minutes
        if self.budgets is not None:
            return
        if self._apart:  # or else what the search has encoded is packed as it is
            yield from self._gathering(self.calls.rows)
            yield "Packing", self._encoded(1)
        for name, calls in following().items():
            rows = rows_of_images(self.rehearsal, 1)
            yield name, calls * rows * self.rehearsal.row

    def _gathering(self, rows: int) -> Iterator[tuple[str, float]]:
        """A stage, if the encoding or the biases ask for anything of inputs."""
        denoiser, grams = self.job.denoiser, self.encoding.needs_grams
        plain = {layer.name: Choice("int8/channel") for layer in self.rehearsal.layers}
        needy = needing_moments(denoiser, Plan(plain, encoding=self.encoding), grams=grams)
        if not needy:
            return
        seen = rows / self.rehearsal.rows
        given = {
            layer.name: int(seen * (layer.macs or 0) / layer.parameters)
            for layer in self.rehearsal.layers
        }
        work = work_of_moments(denoiser, needy, self.calls.count, given, grams=grams)
        yield (
            GATHERING,
            (
                work.passes * rows * self.rehearsal.row * WATCHED
                + work.products / self.rehearsal.products
            ),
        )

    @property
    def _looks_for_constants(self) -> bool:
        pipe = self.job.pipe
        if not self.options.bos or not text_readers(self.rehearsal.layers):
            return False
        return pipe is None or not pads_left(pipe)

    @property
    def _watched(self) -> float:
        """Seconds of a run of all recorded calls, with hooks."""
        return self.calls.rows * self.rehearsal.row * WATCHED

    @property
    def _run(self) -> float:
        """Seconds of a measurement: of all calls that judge, or of all images."""
        if self.metric.sees == "outputs":
            return self._judging * self.rehearsal.row
        sampling = self.job.sampling
        assert sampling is not None  # or else there is no pipeline to make images
        images = min(len(sampling), self.metric.prompts or len(sampling))
        rows = rows_of_images(self.rehearsal, images)
        return steps_of(self.job) * rows * self.rehearsal.row

    def _probing(self, probes: int) -> float:
        """Seconds of so many probes in a row, all candidates encoded already."""
        passes = self.rehearsal.passes
        if passes is None:
            return 0.0
        clips = len(self.options.clips)
        inputs = sum(clips if each.endswith("/tensor") else each != FLOAT for each in self._inputs)
        return passes.of_probes(probes, self._candidates, inputs)

    @property
    def _fits(self) -> bool:
        return self.encoding.needs_grams and self.metric.sees == "outputs"

    @property
    def _held(self) -> int:
        return self.calls.rows // EVERY

    @property
    def _apart(self) -> bool:
        return self._fits and self._held >= 2 * FEWEST

    @property
    def _judging(self) -> int:
        """Rows of the calls that plans are judged on."""
        return self._held if self._apart else self.calls.rows

    @property
    def _enough(self) -> bool:
        """True where samples are left to judge exchanges and biases on."""
        return self._apart or self._held >= FEWEST_HELD

    @property
    def _exchanges(self) -> bool:
        wanted = self.options.exchanges and self.options.labels is None
        return bool(self.probes) and wanted and not self.options.refit and self._enough

    @property
    def _goal(self) -> bool:
        """True where plans are measured until one reaches a quality."""
        return self.job.budget.decibels is not None

    @property
    def _plans(self) -> int:
        """Whole plans that are measured for certain: with and without biases, and without inputs.

        One that was measured for one reason serves all others.
        """
        verifies = not self.probes or self.options.sensitivity != "probes"
        if not verifies:
            return int(self._goal)
        biases = self.metric.kind == "noise" and self.options.bias_correction == "tried"
        return (self.budgets or 1) * (1 + (biases and self._enough) + self._quantizes)

    @cached_property
    def _inputs(self) -> tuple[str, ...]:
        return input_formats(self.job.budget, self.options)

    @property
    def _rounded_inputs(self) -> int:
        return sum(name != FLOAT for name in self._inputs)

    @property
    def _quantizes(self) -> bool:
        return self._rounded_inputs > 0

    @property
    def _weights(self) -> Sequence[str]:
        return [weight for weight in self.options.formats if weight != FLOAT]

    @cached_property
    def _candidates(self) -> CandidateSeconds:
        """Seconds of all candidate weights but smoothed ones."""
        denoiser, layers = self.job.denoiser, self.rehearsal.layers
        plain = rehearsed_candidates(denoiser, layers, self._weights, self.encoding)
        return plain.times(1 + len(self.options.mixtures) / max(1, len(self._weights)))

    def _encoded(self, formats: int) -> float:
        """Seconds of encoding all weights in so many formats."""
        return self._candidates.encoding * formats / max(1, len(self._weights))

    @property
    def _begun(self) -> bool:
        journal = self.job.measuring.journal
        return journal is not None and journal.exists()
