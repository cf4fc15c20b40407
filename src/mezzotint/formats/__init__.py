"""Number formats: grids, stored tensors, canonical forms. Knows tensors only."""

from mezzotint.formats.activation import ActivationFormat
from mezzotint.formats.affine_grid import AffineGrid
from mezzotint.formats.bitcast import as_bits, from_bits
from mezzotint.formats.codebook import CodebookFormat
from mezzotint.formats.coded_format import CodedFormat
from mezzotint.formats.compiled import ClipCandidates, CompiledPasses, use_compiled
from mezzotint.formats.forms import AffineSegment, LookupSegment, Segment
from mezzotint.formats.grid import Columns, Grid
from mezzotint.formats.lookup_grid import LookupGrid
from mezzotint.formats.lut import LutFormat
from mezzotint.formats.mixed import MixedFormat
from mezzotint.formats.mixed_grid import MixedGrid
from mezzotint.formats.packing import pack, packed_width, unpack
from mezzotint.formats.ranges import MINMAX, MPQ_DM, MSE, QUA2SEDIMO, RangeSearch
from mezzotint.formats.registry import (
    FLOAT,
    parse_activation_format,
    parse_weight_format,
    register_weight_format,
)
from mezzotint.formats.straight_through import straight_through
from mezzotint.formats.uniform import UniformFormat
from mezzotint.formats.weight_format import (
    ChannelOrder,
    Codes,
    Shape,
    TensorSpec,
    WeightFormat,
    check_finite,
    code_pieces,
)

__all__ = [
    "FLOAT",
    "MINMAX",
    "MPQ_DM",
    "MSE",
    "QUA2SEDIMO",
    "ActivationFormat",
    "AffineGrid",
    "AffineSegment",
    "ChannelOrder",
    "ClipCandidates",
    "CodebookFormat",
    "CodedFormat",
    "Codes",
    "Columns",
    "CompiledPasses",
    "Grid",
    "LookupGrid",
    "LookupSegment",
    "LutFormat",
    "MixedFormat",
    "MixedGrid",
    "RangeSearch",
    "Segment",
    "Shape",
    "TensorSpec",
    "UniformFormat",
    "WeightFormat",
    "as_bits",
    "check_finite",
    "code_pieces",
    "from_bits",
    "pack",
    "packed_width",
    "parse_activation_format",
    "parse_weight_format",
    "register_weight_format",
    "straight_through",
    "unpack",
    "use_compiled",
]
