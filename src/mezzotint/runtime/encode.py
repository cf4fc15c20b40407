"""The stored tensors of one quantizer's weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.formats import WeightFormat
from mezzotint.plan import Encoding
from mezzotint.rounding import rounding_named
from mezzotint.runtime.layer_grid import layer_grid
from mezzotint.runtime.packed import PartCalibration


def encoded_part(
    weight_format: WeightFormat, weight: Tensor, encoding: Encoding, calibration: PartCalibration
) -> dict[str, Tensor]:
    """Choose the grid, round, and pack: tensors by the names of the format's layout.

    Raises:
        FormatError: the weight holds NaN or infinity, trained values lie on no grid of the format,
            or moments are lacking or of another layer.
    """
    # Within autocast as without: what is stored does not depend on what runs around it.
    with torch.autocast(weight.device.type, enabled=False):
        trained = calibration.values
        if trained is not None:
            grid = layer_grid(weight_format, weight, encoding, trained.order)
            grid = grid.with_parameters(trained.parameters)
            return weight_format.store_values(grid, trained.values.to(weight.device))
        grid = layer_grid(weight_format, weight, encoding)
        rounding = rounding_named(encoding.rounding)
        return weight_format.store(grid, rounding(weight, grid, calibration.moments))
