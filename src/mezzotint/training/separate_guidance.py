"""Pipelines that call their denoiser once for each half of guidance, which training refuses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint._time_argument import TimeArgument
from mezzotint.errors import UsageError
from mezzotint.models import Call
from mezzotint.models.calls import map_tensors


def check_guidance_is_joint(
    denoiser: nn.Module, answer: Callable[[Call], Tensor]
) -> Callable[[Call], Tensor]:
    """`answer`, for calls of which no two in a row are halves of the guidance of one step.

    Halves have the same latents and the same timestep, and other conditions. Schedulers that need
    several outputs for a step, such as Heun's, ask for them at other latents.

    Args:
        denoiser: tells the names of arguments; latents come first.
        answer: computes the output of one call.

    Raises:
        UsageError: by what is returned; a call is the second half.
    """
    signature, time = inspect.signature(denoiser.forward), TimeArgument.of(denoiser.forward)
    before: dict[str, list[Tensor]] = {}

    def checked(call: Call) -> Tensor:
        nonlocal before
        given = signature.bind(*call.args, **call.kwargs).arguments
        now = {name: _tensors(value) for name, value in given.items()}
        step = {next(iter(signature.parameters)), *(() if time is None else (time.name,))}
        if before and _same(now, before, step) and not _same(now, before, now.keys() - step):
            raise UsageError(
                "pipe: calls its denoiser twice at one denoising step, once for each half of "
                "guidance; training follows guidance that runs both halves in one call. Switch it "
                'off, in most pipelines by "guidance_scale": 1 in generation.json, or quantize '
                "without training"
            )
        before = now
        return answer(call)

    return checked


def _tensors(value: Any) -> list[Tensor]:
    """Copies of the tensors in an argument; of a number, as one."""
    if isinstance(value, int | float):
        return [torch.tensor(value)]
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor.detach().clone())
        return tensor

    map_tensors(value, keep)
    return found


def _same(
    ours: Mapping[str, list[Tensor]], theirs: Mapping[str, list[Tensor]], names: set[str]
) -> bool:
    """True where two calls give the same for all of some arguments."""
    return all(
        len(ours.get(name, ())) == len(theirs.get(name, ()))
        and all(map(torch.equal, ours.get(name, ()), theirs.get(name, ())))
        for name in names
    )
