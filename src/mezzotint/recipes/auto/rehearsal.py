"""One call of the denoiser, timed before the work begins: all forecasts go by its seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mezzotint._progress import stage
from mezzotint.calibration.gathered_sums import gathering
from mezzotint.errors import ProbeError
from mezzotint.measuring import (
    CandidateSeconds,
    LayerCandidates,
    PassSeconds,
    Prober,
    Samples,
    backward_errors,
    candidate_seconds,
    middle_layer,
    timed_call,
)
from mezzotint.models import (
    Call,
    Graph,
    Layer,
    layers_in,
    on_device,
    record_first_calls,
    to_quantize,
    trace_calls,
)
from mezzotint.plan import Choice, Encoding
from mezzotint.recipes.job import Job
from mezzotint.recipes.restrictions import Restrictions
from mezzotint.rounding import InputMoments
from mezzotint.runtime import Calibration, EncodedWeights, LayerToEncode

LABEL = "Timing a call"
"""Label of the progress of that stage."""

_SHORT = 1.0
"""Seconds of a call of one image below which a whole batch is timed: it may take hardly longer."""

_SQUARE = 1024
"""Rows and columns of the matrices whose product is timed."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """One call, and what it took on this machine.

    Attributes:
        call: of the first prompts, with its output.
        images: how many images it is of; None where calls were given.
        graph: of the call.
        layers: those that will be looked at.
        row: seconds of each row of a call.
        backward: seconds of one sample forward and backward; None where that fails.
        products: multiplications and additions per second of a matrix product.
    """

    call: Call
    images: int | None
    graph: Graph
    layers: tuple[Layer, ...]
    row: float
    backward: float | None
    products: float

    @property
    def rows(self) -> int:
        """Rows of the call: one for each image, or two under guidance."""
        return 1 if self.call.output is None else len(self.call.output)

    @property
    def passes(self) -> PassSeconds | None:
        """Seconds of one sample; None where there is no way back."""
        return None if self.backward is None else PassSeconds(self.row, self.backward)


def rehearsed(job: Job, restrictions: Restrictions) -> Rehearsal:
    """Time one call of a job's denoiser: of one image, or of a batch where that is short.

    Raises:
        ModelError, UsageError: the pipeline or the denoiser fails, as they would at work; or a
            pattern names no layer.
    """
    with stage(LABEL):
        call, images, seconds = _timed(job, 1)
        if seconds < _SHORT and not job.calls and job.sampling is not None:
            call, images, seconds = _timed(job, job.sampling.batch)
        graph = trace_calls(job.denoiser, [call])
        layers = tuple(
            layer
            for layer in layers_in(job.denoiser, graph)
            if layer.supported and to_quantize(layer.name, job.denoiser)
        )
        if layers:
            restrictions.check([layer.name for layer in layers])
        layers = tuple(layer for layer in layers if restrictions.floating(layer.name) is None)
        rows = 1 if call.output is None else len(call.output)
        return Rehearsal(
            call,
            images,
            graph,
            layers,
            seconds / rows,
            _backward(job.denoiser, call),
            _products(call),
        )


def _timed(job: Job, images: int) -> tuple[Call, int | None, float]:
    if job.calls:
        (call,) = on_device(job.calls[:1], job.denoiser)
        return call, None, timed_call(job.denoiser, call)
    assert job.pipe is not None
    assert job.sampling is not None
    sampling = job.sampling.part(0, images)
    (call,) = on_device(record_first_calls(job.pipe, sampling), job.denoiser)
    return call, len(sampling), timed_call(job.denoiser, call)


def _backward(denoiser: nn.Module, call: Call) -> float | None:
    sample = Samples(denoiser).sample(call, 0)
    try:
        with backward_errors(denoiser, 0):
            return timed_call(denoiser, sample, backward=True)
    except ProbeError:  # all is measured then
        return None


def _products(call: Call) -> float:
    device = torch.device("cpu") if call.output is None else call.output.device
    left = torch.ones(_SQUARE, _SQUARE, device=device)
    _ = float((left @ left)[0, 0])
    started = time.perf_counter()
    _ = float((left @ left)[0, 0])
    return 2 * _SQUARE**3 / (time.perf_counter() - started)


def rehearsed_candidates(
    denoiser: nn.Module, layers: Sequence[Layer], formats: Sequence[str], encoding: Encoding
) -> CandidateSeconds:
    """Seconds of encoding all layers in each of some formats, and of probing what that gives.

    One layer is encoded, in the place of its real inputs by unrelated ones.
    """
    candidates = {layer.name: LayerCandidates(tuple(formats)) for layer in layers}
    known, plain = Calibration(), replace(encoding, bias_correction=False)
    if encoding.needs_grams:
        middle = middle_layer(denoiser, candidates)
        known = replace(known, moments={middle: (_unrelated(denoiser, middle),)})
    encoded = EncodedWeights()

    def weight_of(name: str, choice: Choice) -> tuple[Tensor, None]:
        layer = denoiser.get_submodule(name)
        return encoded.weight(LayerToEncode(name, layer, choice, plain, known)), None

    with stage(LABEL):
        return candidate_seconds(Prober(denoiser, (), candidates, weight_of))


def _unrelated(denoiser: nn.Module, layer: str) -> InputMoments:
    """Moments of inputs that are unrelated, all of the same size, and 0 on average."""
    (sums,) = gathering(layer, denoiser, Choice("int8/channel"), 1, grams=True).parts
    groups = sums.shape.groups
    blocks = tuple(torch.eye(size).repeat(groups, 1, 1) for size in sums.sizes)
    return InputMoments(blocks, torch.zeros(groups, sum(sums.sizes)), 1)
