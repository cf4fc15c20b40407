"""Digests of what measurements depend on, and weights that cannot be measured at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from mezzotint.errors import CalibrationError
from mezzotint.measuring.in_process import recorded_output
from mezzotint.models import Call
from mezzotint.runtime import rounded_attention
from mezzotint.runtime.lazy_weight import dense


def model_digest(denoiser: nn.Module) -> str:
    """A hash of the denoiser's weights and of their names."""
    digest = hashlib.sha256()
    for name, tensor in denoiser.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def component_digests(pipe: DiffusionPipeline) -> dict[str, str]:
    """A hash of each component of a pipeline: equal where both compute the same, bit for bit.

    Weights count with their types and strides, on which the order of sums depends; of other
    components their class and configuration.
    """
    found = {}
    for name, component in pipe.components.items():
        digest = hashlib.sha256(type(component).__qualname__.encode())
        if isinstance(component, nn.Module):
            processors = getattr(component, "attn_processors", {})
            digest.update(repr({n: type(each).__name__ for n, each in processors.items()}).encode())
            digest.update(str(rounded_attention(component)).encode())
            for key, tensor in component.state_dict().items():
                digest.update(f"{key} {tensor.dtype} {tensor.shape} {tensor.stride()}".encode())
                digest.update(_bytes(tensor))
        else:
            digest.update(repr(sorted(getattr(component, "config", {}).items())).encode())
        found[name] = digest.hexdigest()[:16]
    return found


def calls_digest(calls: Sequence[Call]) -> str:
    """A hash of the recorded outputs, which depend on all that was given to the denoiser.

    Raises:
        CalibrationError: a call was never run.
    """
    digest = hashlib.sha256()
    for call in calls:
        digest.update(_bytes(recorded_output(call)))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    tensor = dense(tensor.detach()).cpu().contiguous()
    return tensor.flatten().view(torch.uint8).numpy().tobytes()


def check_weights(denoiser: nn.Module, names: Sequence[str]) -> None:
    """Raise CalibrationError, naming the layer, where any tensor holds NaN or infinity.

    Biases and norms too: what they spoil would be found in the output of another layer.

    Args:
        denoiser: all of whose tensors are looked at.
        names: layers that are looked at first.
    """
    first = [f"{name}.weight" for name in names]
    tensors = denoiser.state_dict()
    for key in dict.fromkeys([*first, *tensors]):
        tensor = tensors[key].detach()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            layer, _, name = key.rpartition(".")
            raise CalibrationError(
                f"layer {layer}: the {name} holds NaN or infinite values; the model is damaged"
            )
