"""Number formats: quantize, dequantize, pack, unpack. Knows tensors only."""

from mezzotint.formats.activation import ActivationFormat
from mezzotint.formats.base import (
    MINMAX,
    MSE,
    RangeSearch,
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
)
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.packing import pack, packed_width, unpack
from mezzotint.formats.registry import (
    FLOAT,
    parse_activation_format,
    parse_weight_format,
    register_weight_format,
)
from mezzotint.formats.uniform import UniformFormat

__all__ = [
    "FLOAT",
    "MINMAX",
    "MSE",
    "ActivationFormat",
    "RangeSearch",
    "Shape",
    "TensorSpec",
    "UniformFormat",
    "WeightFormat",
    "as_bits",
    "check_finite",
    "from_bits",
    "pack",
    "packed_width",
    "parse_activation_format",
    "parse_weight_format",
    "register_weight_format",
    "unpack",
]
