"""Probes of small denoisers, in short."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint._journal import Journal
from mezzotint.formats import parse_activation_format
from mezzotint.measuring import (
    CandidateWeight,
    InputCandidate,
    LayerCandidates,
    Probe,
    Prober,
    Projections,
    draw_probes,
)
from mezzotint.models import Call
from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, pack_layer
from tests.measuring.figures import CALIBRATION


def packed_weights(denoiser: nn.Module, calibration: Calibration = CALIBRATION) -> CandidateWeight:
    """What a packed layer stores, by layer and choice; packed once."""
    layers = dict(denoiser.named_modules())

    @functools.cache
    def weight(name: str, choice: Choice) -> tuple[Tensor, Tensor | None]:
        packed = pack_layer(name, layers[name], Plan({name: choice}), calibration)
        return packed.dequantized_weight(), None

    return weight


def dynamic(*names: str) -> dict[str, InputCandidate]:
    return {name: InputCandidate(parse_activation_format(name)) for name in names}


def candidates(
    layers: Iterable[str], weights: Sequence[str] = (), inputs: Sequence[str] = (), **other: Any
) -> dict[str, LayerCandidates]:
    """The same for every layer."""
    asked = LayerCandidates(tuple(weights), dynamic(*inputs), **other)
    return dict.fromkeys(layers, asked)


def probed(
    denoiser: nn.Module,
    calls: Sequence[Call],
    asked: Mapping[str, LayerCandidates],
    probes: int | Sequence[Probe] = 4,
    journal: Journal | None = None,
    **other: Any,
) -> Projections:
    if isinstance(probes, int):
        probes = draw_probes(calls, probes)
    calibration = other.get("calibration", CALIBRATION)
    weight_of = other.pop("weight_of", packed_weights(denoiser, calibration))
    prober = Prober(denoiser, calls, asked, weight_of, **other)
    return prober.run(probes, journal or Journal(None, {}))


@torch.no_grad()
def call_of(denoiser: nn.Module, *args: Any, **kwargs: Any) -> Call:
    """One call, recorded."""
    call = Call(args, kwargs)
    return Call(args, kwargs, call.run(denoiser).clone())
