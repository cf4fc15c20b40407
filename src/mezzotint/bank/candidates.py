"""One layer in all its stored forms, and what each of them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mezzotint.bank.digests import weight_digest
from mezzotint.bank.index import BankedLayer, BankedWeight, Candidate
from mezzotint.bank.weight_nodes import node_keys, quantizer_formats
from mezzotint.plan import Choice
from mezzotint.runtime import LayerToEncode
from mezzotint.runtime.composition import part_weights

POWER = 2.4
"""Exponent of the error of a weight, for every format: Qua²SeDiMo's."""


def weight_error(weight: Tensor, decoded: Tensor) -> float:
    """Mean of |w - ŵ|^2.4 over all weights, in float64."""
    difference = weight.double() - decoded.to(weight.device).double()
    return float(difference.abs_().pow_(POWER).mean())


@torch.no_grad()
def encoded_candidates(
    asked: LayerToEncode, choices: Sequence[Choice]
) -> tuple[BankedLayer, dict[str, Tensor]]:
    """All stored forms of a layer, and their tensors by the names of `stored_name`.

    Args:
        asked: the layer under any of its choices.
        choices: all of them, of the same structures.

    Raises:
        FormatError: the weight holds NaN or infinity, or moments are lacking or of another layer.
    """
    structures, shape = asked.choice.structures, asked.shape
    keys = node_keys(asked.name, structures, shape)
    floating = part_weights(asked.weight, structures, shape, asked.own)
    found: dict[str, dict[str, Candidate]] = {key: {} for key in keys}
    tensors: dict[str, Tensor] = {}
    for choice in choices:
        one = replace(asked, choice=choice)
        parts = one.encoded()
        of_nodes = zip(
            keys, quantizer_formats(choice), parts, floating, one.decoded(parts), strict=True
        )
        for key, name, part, weight, decoded in of_nodes:
            size = sum(tensor.nbytes for tensor in part.values())
            found[key][name] = Candidate(bytes=size, error=weight_error(weight, decoded))
            tensors |= {stored_name(key, name, each): part[each].cpu() for each in part}
    nodes = {
        key: BankedWeight(weights=weight.numel(), candidates=found[key])
        for key, weight in zip(keys, floating, strict=True)
    }
    return BankedLayer(digest=weight_digest(asked.weight), nodes=nodes), tensors


def stored_name(key: str, weight_format: str, tensor: str) -> str:
    """Name of a tensor in the file of its layer."""
    return f"{key}|{weight_format}|{tensor}"
