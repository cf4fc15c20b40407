"""Recorded calls of a joint module: with their text, and of decoders."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._progress import track
from mezzotint.models.call_arguments import COMPONENT
from mezzotint.models.calls import Call, device_of
from mezzotint.models.joint import Joint
from mezzotint.models.sampling import run_batches
from mezzotint.plan import Sampling

MOST_DECODED = 8
"""Pictures of which decoders are recorded: each takes a whole run of the pipeline."""


@torch.no_grad()
def with_texts(joint: Joint, calls: tuple[Call, ...], sampling: Sampling) -> tuple[Call, ...]:
    """Calls whose text the joint module encodes itself, with its own outputs.

    Raises:
        UsageError: the text is not to be found in the calls.
    """
    if joint.texts is None or not calls:
        return calls
    told = joint.texts.told(joint.components, calls, sampling)
    return tuple(_completed(joint, call) for call in told)


@torch.no_grad()
def record_decoding(pipe: DiffusionPipeline, joint: Joint, sampling: Sampling) -> tuple[Call, ...]:
    """Calls of the decoders of a joint module, on latents of the first prompts.

    Raises:
        ModelError: the pipeline's own code fails.
    """
    calls: list[Call] = []
    for name, decoder in joint.decoders.items():
        batches = tuple(sampling.part(0, MOST_DECODED).batches())
        for batch in track(batches, "Recording", len(batches)):
            taken: list[Call] = []
            with _taking(name, decoder, taken), suppress(_DecodedError):
                for _ in run_batches(pipe, batch, output_type="np"):
                    pass
            calls += [_completed(joint, call) for call in taken]
    return tuple(calls)


@contextmanager
def _taking(name: str, decoder: nn.Module, taken: list[Call]) -> Iterator[None]:
    """Take the arguments of a decoder's call, and end the pipeline's run there."""
    signature = inspect.signature(decoder.decode)  # type: ignore[arg-type]

    def decode(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        # A generator is used by decoders that add noise; they are compared without any.
        given.pop("generator", None)
        call = Call((), {COMPONENT: name, **given, "return_dict": False})
        taken.append(call.mapped(lambda tensor: tensor.detach().to("cpu", copy=True)))
        raise _DecodedError

    vars(decoder)["decode"] = decode
    try:
        yield
    finally:
        del vars(decoder)["decode"]


class _DecodedError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline's run where it decodes."""


def _completed(joint: Joint, call: Call) -> Call:
    output = call.to(device_of(joint)).run(joint)
    return replace(call, output=output.detach().to("cpu", copy=True))
