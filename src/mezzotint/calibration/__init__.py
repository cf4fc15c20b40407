"""Calibration: input ranges, sizes and structures' tensors, found in recorded calls."""

from mezzotint.calibration.input_spread import InputSpread, input_spreads
from mezzotint.calibration.needs import calibrated, needs_calibration, with_settings
from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.sizes import input_sizes
from mezzotint.calibration.structure_tensors import Refusal, StructureTensors, observe_structures

__all__ = [
    "InputSpread",
    "Refusal",
    "StructureTensors",
    "calibrated",
    "input_ranges",
    "input_spreads",
    "input_sizes",
    "needs_calibration",
    "observe_structures",
    "with_settings",
]
