"""Recording of a denoiser's calls while its pipeline runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from diffusers import DiffusionPipeline
from torch import nn

from mezzotint._progress import track
from mezzotint.errors import UsageError
from mezzotint.models.call_arguments import component_of
from mezzotint.models.calls import Call
from mezzotint.models.chosen_components import denoising_module
from mezzotint.models.joint import Joint, denoising_parts
from mezzotint.models.joint_recording import record_decoding, with_texts
from mezzotint.models.recorder import Recorder
from mezzotint.models.sampling import run_batches
from mezzotint.models.selected_calls import record_selection
from mezzotint.plan import CallSelection, Sampling


@torch.no_grad()
def record_calls(
    pipe: DiffusionPipeline,
    sampling: Sampling,
    selection: CallSelection | None = None,
    *,
    limit: int | None = None,
    denoiser: nn.Module | None = None,
) -> tuple[Call, ...]:
    """Run the pipeline and return its denoiser's calls, in order, with their outputs.

    Of a pipeline with several denoisers they are those of a joint module of all.

    Tensors are detached copies on the CPU; one call holds a whole batch (twice that under
    classifier-free guidance).

    Args:
        pipe: makes images or videos from noise.
        sampling: prompts, seeds, steps, and further arguments of the pipeline's call.
        selection: the calls to keep, and how many samples of each; None for all of them, whole.
            Where the samples of a call cannot be told apart, or depend on each other, calls are
            kept whole.
        limit: end the run after that many calls; goes without a selection.
        denoiser: whose calls; by default the pipeline's own, or all of them.

    Raises:
        ModelError: the pipeline has no denoiser, or fails.
        UsageError: `limit` is below 1, or given with a selection; or the sampling does not fit the
            pipeline's call.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit: {limit} is too few; record 1 call or more")
    if limit is not None and selection is not None:
        raise UsageError("limit: is for recording all calls; leave it or the selection out")
    denoiser = denoiser or denoising_module(pipe)
    if limit is None and isinstance(denoiser, Joint):
        return _record_joint(pipe, denoiser, sampling, selection)
    return _record(pipe, denoiser, sampling, selection, limit)


@torch.no_grad()
def record_first_calls(pipe: DiffusionPipeline, sampling: Sampling) -> tuple[Call, ...]:
    """The first call of each of the pipeline's denoisers; the run ends when all are there.

    Of several denoisers they are those of a joint module; one that the run does not reach has none.

    Args:
        pipe: as for `record_calls`.
        sampling: likewise.

    Raises:
        ModelError, UsageError: as `record_calls`.
    """
    denoiser, calls = denoising_module(pipe), list[Call]()
    awaited = {*denoising_parts(denoiser)}

    def take(call: Call) -> None:
        name = component_of(call)
        if name in awaited:
            awaited.remove(name)
            calls.append(call)
        if not awaited:
            raise _EnoughError

    recorder = Recorder(take)
    with recorder.watching(denoiser), suppress(_EnoughError):
        for _ in run_batches(pipe, sampling, output_type="latent"):
            pass
    return tuple(calls)


def _record_joint(
    pipe: DiffusionPipeline, joint: Joint, sampling: Sampling, selection: CallSelection | None
) -> tuple[Call, ...]:
    """Calls of a joint module's denoisers, with their text, and of its decoders."""
    calls: tuple[Call, ...] = ()
    if joint.denoisers:
        try:
            calls = with_texts(joint, _record(pipe, joint, sampling, selection, None), sampling)
        except UsageError:
            if sampling.batch == 1:
                raise
            # Some pipelines pad each text to the longest of its batch.
            alone = replace(sampling, batch=1)
            calls = with_texts(joint, _record(pipe, joint, alone, selection, None), alone)
    return calls + record_decoding(pipe, joint, sampling)


def _record(
    pipe: DiffusionPipeline,
    denoiser: nn.Module,
    sampling: Sampling,
    selection: CallSelection | None,
    limit: int | None,
) -> tuple[Call, ...]:
    if selection is not None:
        return record_selection(pipe, denoiser, sampling, selection)
    calls: list[Call] = []

    def take(call: Call) -> None:
        calls.append(call)
        if len(calls) == limit:
            raise _EnoughError

    recorder = Recorder(take)
    batches = math.ceil(len(sampling) / sampling.batch)
    with recorder.watching(denoiser), suppress(_EnoughError):
        for _ in track(run_batches(pipe, sampling, output_type="latent"), "Recording", batches):
            recorder.step = -1
    return tuple(calls)


@contextmanager
def recording(source: DiffusionPipeline | nn.Module) -> Iterator[list[Call]]:
    """Record the denoiser's calls while the caller runs the pipeline in whatever way it wants.

    For pipelines that are called in another way than `Sampling` can say.

    >>> with recording(pipe) as calls:
    ...     pipe("an owl", image=edges)
    >>> quantize(pipe, calls=calls)

    Args:
        source: a pipeline, or its denoiser itself. The calls of several denoisers are those of a
            joint module.

    Yields:
        A list that grows by a detached copy on the CPU with every call.

    Raises:
        ModelError: the pipeline has no denoiser.
        UsageError: the source is neither.
    """
    if not isinstance(source, nn.Module | DiffusionPipeline):
        raise UsageError(f"source: is a {type(source).__name__}; give a pipeline or its denoiser")
    denoiser = source if isinstance(source, nn.Module) else denoising_module(source)
    calls: list[Call] = []
    with Recorder(calls.append).watching(denoiser):
        yield calls


class _EnoughError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline run once the limit is reached; pipelines offer no other way out."""
