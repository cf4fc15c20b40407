"""Bias correction: the stored bias takes in the mean output error of a rounded weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mezzotint.plan import LayerShape, Structure, Tensors
from mezzotint.rounding import InputMoments
from mezzotint.runtime.composition import join_shifts, part_weights


def bias_shift(
    weight: Tensor,
    decoded: Sequence[Tensor],
    moments: Sequence[InputMoments],
    structures: tuple[Structure, ...],
    layer: LayerShape,
    tensors: Tensors,
) -> Tensor:
    """E[(W - Ŵ) x] over the inputs that quantizers see: float32 [out].

    Args:
        weight: W, floating, of the layer.
        decoded: Ŵ of each quantizer.
        moments: of each quantizer's inputs.
        structures: of the layer.
        layer: its shape.
        tensors: as `own_tensors` gives them.

    Raises:
        FormatError: a structure cannot be corrected by the bias, or moments are of another layer.
    """
    exact = part_weights(weight, structures, layer, tensors)
    shifts = [_mean_error(*each) for each in zip(exact, decoded, moments, strict=True)]
    return join_shifts(shifts, structures, layer)


def _mean_error(exact: Tensor, decoded: Tensor, moments: InputMoments) -> Tensor:
    error = exact.detach().float().flatten(1) - decoded.to(exact.device).float().flatten(1)
    moments.check(*error.shape, grams=False)
    mean = moments.mean.to(error.device)
    by_group = error.view(moments.groups, -1, moments.columns)
    with torch.autocast(error.device.type, enabled=False):
        return (by_group @ mean.unsqueeze(-1)).flatten()
