"""Speed of a result that is yet to be found, as the floating pipeline's profile tells it."""

from __future__ import annotations

import math

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.evaluation import CallTimes, EngineTime, others
from mezzotint.models import find_denoiser
from mezzotint.plan import Budget, Choice, Plan, uniform_choice
from mezzotint.profiling import QUICK, Timer, Work, predict, quick_profile
from mezzotint.speed.known_times import TORCH


def foretold_speed(
    pipe: DiffusionPipeline, budget: Budget, work: Work | None = None, *, timer: Timer = QUICK
) -> CallTimes | None:
    """Time of one call with every layer at a budget's average bits, beside the floating one's.

    From the profile of this machine, if it has these formats; or else from an estimate: some
    milliseconds for each distinct layer, kept in the user's cache folder.

    Args:
        pipe: floating.
        budget: of the plan.
        work: what is called for; by default one image.
        timer: of an estimate.

    Returns:
        None where the budget says nothing of the bits.

    Raises:
        UsageError, ModelError: as `profile_pipeline`, such as of a pipeline of several denoisers.
    """
    denoiser = find_denoiser(pipe)[1]
    choice = _average_choice(budget, denoiser)
    if choice is None:
        return None
    profile, careful = quick_profile(pipe, (choice,), work, timer=timer)
    able = [name for name, layer in profile.layers.items() if choice in layer.figures]
    predicted = predict(profile, Plan(dict.fromkeys(able, choice)))
    refused, untimed = others(pipe, (TORCH,))
    return CallTimes(
        profile.milliseconds,
        (EngineTime(TORCH, predicted, predicted / profile.milliseconds),),
        profile.machine.device,
        torch.get_num_threads(),
        refused=refused,
        untimed=untimed,
        source="predicted by a profile" if careful else "estimated from its layers",
        subject=f"a result of {choice} in every layer",
    )


def _average_choice(budget: Budget, denoiser: nn.Module) -> Choice | None:
    bits, size = budget.weight_bits, budget.bytes
    if bits is None and size is not None:
        bits = 8 * size / sum(parameter.numel() for parameter in denoiser.parameters())
    if bits is None:
        return None
    return uniform_choice(min(max(math.floor(bits), 1), 8), math.ceil(budget.act_bits))
