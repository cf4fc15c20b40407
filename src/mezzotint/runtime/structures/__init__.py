"""Built-in structures, one file each; importing this package registers them."""

from mezzotint.runtime.structures.constant_tokens import ConstantTokens
from mezzotint.runtime.structures.norm_smoothing import NormSmoothing
from mezzotint.runtime.structures.smoothing import Smoothing
from mezzotint.runtime.structures.split_input import SplitInput
from mezzotint.runtime.structures.step_scales import StepScales
from mezzotint.runtime.structures.step_widths import StepWidths

__all__ = [
    "ConstantTokens",
    "NormSmoothing",
    "Smoothing",
    "SplitInput",
    "StepScales",
    "StepWidths",
]
