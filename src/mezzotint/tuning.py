"""Training of a plan that was found: its scales, zero points, biases and norms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffusers import DiffusionPipeline

from mezzotint._words import listed
from mezzotint.calibration import needs_calibration
from mezzotint.errors import PlanError, UsageError
from mezzotint.models import Sampling, evaluating, model_name
from mezzotint.pipeline import Result, apply, float_denoiser, measuring_settings
from mezzotint.plan import Budget, Plan
from mezzotint.recipes import Job, Outcome
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.recipes.distillation import USUAL_MINUTES, distilling
from mezzotint.recipes.given import check_apply
from mezzotint.recipes.plan_calibration import calibrate_plan
from mezzotint.runtime import Calibration, check_plan
from mezzotint.training import Training


def tune(
    pipe: DiffusionPipeline,
    plan: Plan,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    sampling: Sampling | None = None,
    batch: int = Training.batch,
    journal: str | Path | None = None,
) -> Result:
    """Pack after a plan, and train its scales, zero points, biases and norms: no byte is added.

    Weights keep their codes. The pipeline, which is left as it is, teaches along its own
    trajectory; data are not needed.

    Args:
        pipe: the floating pipeline that the plan was made for.
        plan: what every layer takes.
        minutes: of training; 10 unless `steps` are given. With 0, the state of an interrupted or
            failed training is packed, where there is one.
        steps: updates, in the place of minutes.
        sampling: prompts, seed and steps of the calibration, as for `apply`; training takes its
            prompts, too, where they are not the usual ones.
        batch: prompts per update.
        journal: the states of the training are kept in a folder beside this file (`owl.training`
            beside `owl.journal.jsonl`), from which an interrupted one goes on.

    Raises:
        PlanError: the plan is of another model, or has weights that stand in their checkpoint only.
        UsageError: the pipeline is quantized already, or has an adapter loaded; the plan is of
            several components, or of another than the denoiser; a number is out of its domain.
        TrainingError: the loss is NaN, or grows.
        JournalError: the states are of another training.
    """
    if minutes is None and steps is None:
        minutes = USUAL_MINUTES
    training = Training(minutes, steps, train="scales", batch=batch)
    check_apply(pipe, plan, sampling)
    if plan.components:
        raise UsageError(
            f"plan: is of {listed(plan.components)}, and tuning trains one denoiser; pack it "
            "without training: apply(pipe, plan), or `mezzotint quantize --plan`"
        )
    denoiser = float_denoiser(pipe)
    check_plan(denoiser, plan)
    if plan.trained:
        raise PlanError(
            f"layer {plan.trained[0]}: its weight has been trained already, and tuning begins with "
            "the original's; choose another rounding, such as 'nearest', in a copy of the plan"
        )
    known = None if plan.calibration is None else plan.calibration.sampling
    job = Job(
        denoiser=denoiser,
        model=model_name(pipe),
        budget=Budget(),
        pipe=pipe,
        sampling=sampling or known or default_sampling(pipe),
        measuring=measuring_settings(journal, None, None),
    )
    with evaluating(denoiser), distilling(job, training) as distilled:
        calibration = Calibration()
        if needs_calibration(plan):
            plan, calibration = calibrate_plan(pipe, denoiser, plan, sampling)
        outcome = distilled(Outcome(plan, calibration))
    result = apply(pipe, outcome.plan, outcome.calibration)
    return replace(result, training=outcome.training)
