"""Packed layers and the kernels that compute them. Knows formats and plans."""

from mezzotint.runtime import cpu, cuda, reference_kernel
from mezzotint.runtime.attention import attention, has_fast_attention, use_fast_attention
from mezzotint.runtime.calibration_values import Calibration
from mezzotint.runtime.composition import join_inputs, own_tensors, part_inputs
from mezzotint.runtime.convert import (
    check_plan,
    checking_layers,
    dequantize_module,
    pack_module,
    packed_copy,
    packed_layers,
    read_timesteps,
    reading_timesteps,
    replace_layer,
    replace_layers,
    share_token_check,
)
from mezzotint.runtime.encoded import EncodedWeights, LayerToEncode
from mezzotint.runtime.executions import Execution, executions
from mezzotint.runtime.geometry import ConvGeometry
from mezzotint.runtime.kernels import (
    AsStored,
    Kernel,
    Prepared,
    Replacement,
    Request,
    Selection,
    register_kernel,
    registered_kernels,
    select_kernel,
)
from mezzotint.runtime.layer import QuantLayer
from mezzotint.runtime.layer_tensors import (
    calibrated_tensors,
    placeholders,
    quantizers,
    stored_tensors,
    structure_tensors,
)
from mezzotint.runtime.layers import QuantConv2d, QuantLinear, operation_of
from mezzotint.runtime.lazy_weight import LazyWeight
from mezzotint.runtime.memory import keep_unpacked
from mezzotint.runtime.operands import (
    Conv2d,
    InputQuantizer,
    Linear,
    Operation,
    PackedWeight,
)
from mezzotint.runtime.pack import (
    check_calibration,
    empty_layer,
    pack_layer,
    pack_weight,
    unfilled_layer,
)
from mezzotint.runtime.packed import (
    GridValues,
    InputRange,
    PackedLayer,
    check_input_ranges,
)
from mezzotint.runtime.part import QuantizedPart
from mezzotint.runtime.rounded_attention import round_attention, rounded_attention
from mezzotint.runtime.size import module_bytes, nominal_bits, weights_by_format
from mezzotint.runtime.smoothing_norms import smoothed_parameters, smoothing_norms
from mezzotint.runtime.structured import StructuredLayer, shape_of
from mezzotint.runtime.structures import (
    ConstantTokens,
    NormSmoothing,
    Smoothing,
    SplitInput,
    StepScales,
    StepWidths,
)
from mezzotint.runtime.summaries import quantized_html, quantized_line
from mezzotint.runtime.timestep import TimestepReader, nearest_step

#: Modules that register a kernel when imported.
BUILT_IN_KERNELS = (cpu, cuda, reference_kernel)

__all__ = [
    "BUILT_IN_KERNELS",
    "AsStored",
    "Calibration",
    "ConstantTokens",
    "Conv2d",
    "ConvGeometry",
    "EncodedWeights",
    "Execution",
    "GridValues",
    "InputQuantizer",
    "InputRange",
    "Kernel",
    "LayerToEncode",
    "LazyWeight",
    "Linear",
    "NormSmoothing",
    "Operation",
    "PackedLayer",
    "PackedWeight",
    "Prepared",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "QuantizedPart",
    "Replacement",
    "Request",
    "Selection",
    "Smoothing",
    "SplitInput",
    "StepScales",
    "StepWidths",
    "StructuredLayer",
    "TimestepReader",
    "attention",
    "calibrated_tensors",
    "check_calibration",
    "check_input_ranges",
    "check_plan",
    "checking_layers",
    "dequantize_module",
    "empty_layer",
    "executions",
    "has_fast_attention",
    "join_inputs",
    "keep_unpacked",
    "module_bytes",
    "nearest_step",
    "nominal_bits",
    "operation_of",
    "own_tensors",
    "pack_layer",
    "pack_module",
    "pack_weight",
    "packed_copy",
    "packed_layers",
    "part_inputs",
    "placeholders",
    "quantized_html",
    "quantized_line",
    "quantizers",
    "read_timesteps",
    "reading_timesteps",
    "register_kernel",
    "registered_kernels",
    "replace_layer",
    "replace_layers",
    "round_attention",
    "rounded_attention",
    "select_kernel",
    "shape_of",
    "share_token_check",
    "smoothed_parameters",
    "smoothing_norms",
    "stored_tensors",
    "structure_tensors",
    "unfilled_layer",
    "use_fast_attention",
    "weights_by_format",
]
