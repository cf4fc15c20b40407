"""Preparation of a search: calls, structures, candidates, program and calibration, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from mezzotint.measuring import chosen_metric
from mezzotint.recipes.auto.announcing import announced
from mezzotint.recipes.auto.candidates import candidate_formats
from mezzotint.recipes.auto.divided_samples import divided_samples
from mezzotint.recipes.auto.encodings import encodings
from mezzotint.recipes.auto.labels import lesson
from mezzotint.recipes.auto.mixtures import with_mixtures
from mezzotint.recipes.auto.options import FORMATS, Auto
from mezzotint.recipes.auto.pinned import pinned_formats, with_pins
from mezzotint.recipes.auto.posing import posed
from mezzotint.recipes.auto.search import Search
from mezzotint.recipes.auto.smoothed import SmoothedInputs, smoothed_inputs
from mezzotint.recipes.auto.step_inputs import calls_to_record, recorded_steps, with_step_tables
from mezzotint.recipes.job import Job
from mezzotint.recipes.journaled_figures import OUTPUTS
from mezzotint.recipes.latency import deadline, in_profile
from mezzotint.recipes.probing import Probing
from mezzotint.recipes.study import Study


@contextmanager
def prepared(
    job: Job, options: Auto, profile: str | None = None, *, budgets: int | None = None
) -> Iterator[Search]:
    """Record calls, look for structure, pose the program, calibrate; then open the journal.

    Args:
        job: what was asked for.
        options: of the recipe.
        profile: file that will tell plans' latency, where the budget has none: of the default
            formats, those in it are taken.
        budgets: how many plans will be looked for; None for one that is packed as well.

    Raises:
        ModelError: there is nothing to quantize.
        InfeasibleBudgetError: the budget cannot be met; names the nearest that can. That is found
            before anything is measured.
        CalibrationError: weights or inputs hold NaN; the layer is named.
    """
    selection = calls_to_record(job, options)
    rehearsal = announced(job, options, selection, budgets)
    study = Study.of(
        job,
        bos=options.bos,
        shortcuts=options.shortcuts,
        momentum=None,
        selection=selection,
        restrictions=options.restrictions,
    )
    formats = candidate_formats(job.budget, options, partial(recorded_steps, study))
    timed_by = profile if job.budget.latency is None else options.profile
    if timed_by is not None and options.formats == FORMATS:  # nobody asked for those
        formats = in_profile(timed_by, formats)
    candidates = study.structured(formats)
    if job.budget.latency is None:  # profiles know no format that only one layer has
        candidates = with_mixtures(study, candidates, options.mixtures)
    candidates = with_pins(study, candidates, formats)
    smoothed = smoothed_inputs(study, candidates) if options.smoothing else SmoothedInputs()
    others = smoothed.candidates(candidates)
    plain, candidates = candidates, {n: each + others.get(n, ()) for n, each in candidates.items()}
    profiled = pinned_formats(study, formats)
    timed = deadline(study, profiled, options.profile, options.profile_batch)
    program = posed(study, options, candidates, formats, timed)
    encoding, biases = encodings(options)
    metric = chosen_metric(options.metric)
    # Images are of all prompts, whichever calls were recorded of them.
    fits = encoding.needs_grams and metric.sees == "outputs"
    parts = divided_samples(job.denoiser, study.calls, fits=fits)
    asked = [(plain, study.structures.constants), (others, smoothed.tensors)]
    calibration, known = study.calibrated_together(asked, biases, fitted=parts.fitted)
    kinds = with_step_tables(study, plain, calibration)
    if others:
        kinds |= dict.fromkeys(smoothed.structures.values(), known)
        kinds |= with_step_tables(study, others, known)
    calibration = replace(calibration, others=kinds)
    static = any(choice.static for each in plain.values() for choice in each)
    clips = options.clips[1:] if static else ()
    clipped = {clip: study.ranges(plain, clip) for clip in clips}
    part = parts.judging if parts.apart else None
    with study.measuring(calibration, part=part, cache_bytes=options.cache_bytes) as measuring:
        if rehearsal is not None:
            rows = sum(len(call.output) for call in parts.judging if call.output is not None)
            measuring.seconds[OUTPUTS] = rows * rehearsal.row
        told = lesson(study, options, measuring, program)
        yield Search(
            study=study,
            samples=parts,
            options=options,
            metric=metric,
            encoding=encoding,
            formats=formats,
            candidates=candidates,
            program=replace(program, emphasis=told.emphasis),
            timed=timed,
            smoothed=smoothed,
            calibration=calibration,
            ranges={encoding.clip: calibration.input_ranges, **clipped},
            measuring=measuring,
            probing=Probing(
                study,
                calibration,
                encoding,
                measuring.journal,
                passes=None if rehearsal is None else rehearsal.passes,
            ),
            lesson=told,
        )
