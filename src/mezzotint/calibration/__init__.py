"""What has to be seen of a model's inputs before it is quantized."""

from mezzotint.calibration.constants import ConstantOutputs, constant_outputs
from mezzotint.calibration.needs import calibrated, needs_calibration
from mezzotint.calibration.ranges import input_ranges
from mezzotint.calibration.sizes import input_sizes

__all__ = [
    "ConstantOutputs",
    "calibrated",
    "constant_outputs",
    "input_ranges",
    "input_sizes",
    "needs_calibration",
]
