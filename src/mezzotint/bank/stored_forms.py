"""Stored tensors of a bank, mapped from the files of its layers."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mezzotint.bank.candidates import stored_name
from mezzotint.errors import BankError, first_line
from mezzotint.formats import TensorSpec, parse_weight_format
from mezzotint.plan import LayerShape


def stored_form(path: Path, key: str, name: str, shape: LayerShape) -> dict[str, Tensor]:
    """The stored tensors of one weight in one format, mapped from the file.

    Args:
        path: file of its layer.
        key: of the weight.
        name: of the format.
        shape: of the weight's quantizer.

    Raises:
        BankError: the file is damaged, or of other formats.
    """
    weight_format = parse_weight_format(name)
    assert weight_format is not None, "candidates are quantized"
    layout = weight_format.layout(shape.weight)
    try:
        # A file opened once keeps every page ever read of it resident until it is closed.
        with safe_open(path, framework="pt") as file:
            found = {each: file.get_tensor(stored_name(key, name, each)) for each in layout}
    except (SafetensorError, OSError) as cause:
        raise BankError(
            f"{path}: is damaged ({first_line(cause)}); delete the bank, and build it anew"
        ) from cause
    specs = {each: TensorSpec.of(tensor) for each, tensor in found.items()}
    if specs != dict(layout):
        raise BankError(f"{path}: holds other tensors than {name} has; build the bank anew")
    return found
