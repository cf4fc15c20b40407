"""Mixtures of widths inside one layer as candidates: outlier channels take a bit more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from mezzotint._progress import track
from mezzotint.calibration import input_sizes
from mezzotint.plan import Choice
from mezzotint.recipes.outlier_channels import ChannelSearch, choose_mixture
from mezzotint.recipes.sampled_inputs import sampled_inputs
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration, operation_of
from mezzotint.runtime.lazy_weight import dense

#: Formats of a layer while its floating input is sampled; they make no difference to it.
_PLAIN = Choice("int8/channel")


def with_mixtures(
    study: Study, candidates: Mapping[str, tuple[Choice, ...]], widths: Sequence[int]
) -> dict[str, tuple[Choice, ...]]:
    """Every layer's candidates, and those with the mixture of each width in place of a format.

    A mixture is what the search of MPQ-DM finds on samples of the layer's floating input. Where
    that leaves all channels at one width, the layer has no mixture of it.

    Args:
        study: with the calls to take samples from.
        candidates: by layer.
        widths: average bits of each mixture.
    """
    if not widths:
        return dict(candidates)
    denoiser = study.job.denoiser
    choices = {layer.name: _sampled(study, layer.name) for layer in study.layers}
    sizes = input_sizes(denoiser, study.graph, choices)
    constants = Calibration(tensors=study.structures.constants)
    samples = sampled_inputs(denoiser, choices, study.calls, constants, sizes)
    found: dict[str, tuple[Choice, ...]] = {}
    for name, inputs in track(samples, "Mixing widths", len(choices)):
        layer = denoiser.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d), "no others can be packed"
        weight, operation = dense(layer.get_parameter("weight").detach()), operation_of(layer)
        mixtures = [
            choose_mixture(weight, inputs.x, bits, None, ChannelSearch(), operation)
            for bits in widths
        ]
        names = [mixture.format for mixture in mixtures if mixture.m > 0]
        found[name] = _extended(candidates[name], names)
    return {name: found[name] for name in candidates}


def _sampled(study: Study, layer: str) -> Choice:
    """The choice in which a layer's input is sampled: without tokens that no quantizer sees."""
    choice = study.structures.applied(layer, _PLAIN)
    return choice if choice.parts == 1 else _PLAIN


def _extended(candidates: Sequence[Choice], names: Iterable[str]) -> tuple[Choice, ...]:
    """The candidates, and for each of their inputs one with each of the weight formats."""
    alike = {(each.activation, each.structures): each for each in candidates if each.quantized}
    added = [replace(each, weight=name) for name in names for each in alike.values()]
    return tuple(dict.fromkeys((*candidates, *added)))
