"""The stored tensors of one quantizer's weight."""

from __future__ import annotations

import torch
from torch import Tensor

from mezzotint.formats import Codes, Grid, WeightFormat
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
        return weight_format.store(*rounded_part(weight_format, weight, encoding, calibration))


def rounded_part(
    weight_format: WeightFormat, weight: Tensor, encoding: Encoding, calibration: PartCalibration
) -> tuple[Grid, Codes]:
    """The grid of one quantizer's weight and the code of every weight, before they are packed.

    Raises:
        FormatError: as `encoded_part`.
    """
    trained = calibration.values
    if trained is None:
        grid = layer_grid(weight_format, weight, encoding)
        return grid, rounding_named(encoding.rounding)(weight, grid, calibration.moments)
    grid = layer_grid(weight_format, weight, encoding, trained.order)
    grid = grid.with_parameters(trained.parameters)
    return grid, grid.codes_of_rows(trained.values.to(weight.device))
