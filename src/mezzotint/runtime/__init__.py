"""Packed layers and the kernels that compute them. Knows formats and plans."""

from mezzotint.runtime import int8, reference
from mezzotint.runtime.convert import (
    Execution,
    Packing,
    check_plan,
    dequantize_module,
    empty_layer,
    executions,
    packed_layers,
    quantize_module,
)
from mezzotint.runtime.kernels import (
    Kernel,
    Request,
    Selection,
    register_kernel,
    registered_kernels,
    select_kernel,
)
from mezzotint.runtime.layers import (
    TOKEN_DIMS,
    InputRange,
    QuantConv2d,
    QuantLayer,
    QuantLinear,
    check_input_range,
    stored_tensors,
)
from mezzotint.runtime.size import module_bytes

#: Modules that register a kernel when imported.
BUILT_IN_KERNELS = (int8, reference)

__all__ = [
    "BUILT_IN_KERNELS",
    "TOKEN_DIMS",
    "Execution",
    "InputRange",
    "Kernel",
    "Packing",
    "QuantConv2d",
    "QuantLayer",
    "QuantLinear",
    "Request",
    "Selection",
    "check_input_range",
    "check_plan",
    "dequantize_module",
    "empty_layer",
    "executions",
    "module_bytes",
    "packed_layers",
    "quantize_module",
    "register_kernel",
    "registered_kernels",
    "select_kernel",
    "stored_tensors",
]
