"""Tensors that a packed checkpoint may hold."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from mezzotint.errors import CheckpointError, FormatError
from mezzotint.runtime import PackedLayer, QuantLayer, StepScales, StructuredLayer
from mezzotint.runtime.structures.step_scales import check_step_scales


def check_names(names: Collection[str], complaint: str) -> None:
    """Raise CheckpointError where there are `names` to complain about; the first few are shown."""
    if names:
        shown = ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "")
        raise CheckpointError(
            f"{complaint} {len(names)} tensor(s): {shown}; save the model again, or restore the "
            "config.json it was saved with"
        )


def check_type(name: str, found: Tensor, expected: Tensor) -> None:
    """Refuse a stored tensor whose shape or dtype is not the plan's.

    Raises:
        CheckpointError: naming the tensor.
    """
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        raise CheckpointError(
            f"{name}: is {found.dtype} of shape {tuple(found.shape)}, but the plan in config.json "
            f"says {expected.dtype} of shape {tuple(expected.shape)}; they do not belong together"
        )


def check_layer(source: str, name: str, layer: PackedLayer) -> None:
    """Refuse a packed layer that holds values which no quantization can have written.

    Args:
        source: file or folder that it comes from.
        name: of the layer.
        layer: with its tensors.

    Raises:
        CheckpointError: naming the source, the layer, or the part of it, and the tensor.
    """
    for part, module in layer.named_modules(prefix=name):
        try:
            _check_module(module)
        except FormatError as cause:
            raise CheckpointError(
                f"{source}: layer {part}: {cause}; the checkpoint is damaged"
            ) from cause


def _check_module(module: nn.Module) -> None:
    if isinstance(module, QuantLayer):
        module.weight_format.check(module.weight_tensors())
        activation = module.activation_format
        if activation is not None and activation.static:
            assert module.input_quantizer is not None
            module.input_quantizer.check()
    if isinstance(module, StructuredLayer):
        for name, tensor in module.own_tensors.items():
            module.structure.check_tensor(name, tensor)
        activation = module.choice.activation_format
        if isinstance(module.structure, StepScales) and activation is not None:
            check_step_scales(activation, module.own_tensors)
