"""The one figure for size: bytes of the tensors that are stored of a module."""

from __future__ import annotations

from torch import Tensor, nn

from mezzotint._stored_dtypes import stored_dtypes


def module_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and persistent buffers, shared storage counted once.

    This is what `save_pretrained` writes, file headers aside: floating tensors count in the dtype
    that the model's checkpoint has, be it computed in another.
    """
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    dtypes = stored_dtypes(module, state)
    sizes = {id(each): each.numel() * dtypes[name].itemsize for name, each in state.items()}
    return sum(sizes.values())
