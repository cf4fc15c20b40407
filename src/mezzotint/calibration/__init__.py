"""What has to be seen of a model's inputs before it is quantized."""

from mezzotint.calibration.ranges import input_ranges

__all__ = ["input_ranges"]
