"""Number formats: quantize, dequantize, pack, unpack. Knows tensors only."""

from mezzotint.formats.activation import ActivationFormat
from mezzotint.formats.base import (
    MINMAX,
    MSE,
    RangeSearch,
    Segment,
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
)
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.codebook import CodebookFormat
from mezzotint.formats.kurtosis import channel_order, kurtosis
from mezzotint.formats.mixed import MixedFormat
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
    "CodebookFormat",
    "MixedFormat",
    "RangeSearch",
    "Segment",
    "Shape",
    "TensorSpec",
    "UniformFormat",
    "WeightFormat",
    "as_bits",
    "channel_order",
    "check_finite",
    "from_bits",
    "kurtosis",
    "pack",
    "packed_width",
    "parse_activation_format",
    "parse_weight_format",
    "register_weight_format",
    "unpack",
]
