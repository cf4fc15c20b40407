"""The one figure for size: bytes of the tensors a module holds."""

from __future__ import annotations

from torch import Tensor, nn


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and persistent buffers, shared storage counted once.

    This is what `save_pretrained` writes, file headers aside.
    """
    tensors: dict[int, Tensor] = {id(t): t for t in module.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
