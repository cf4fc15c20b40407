"""Replacement of a denoiser's `forward`: compile once per shape, then compute."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import openvino as ov
import torch
from torch import Tensor, nn

from mezzotint.engines.openvino.arguments import Arguments, bind
from mezzotint.engines.openvino.compiling import compile_denoiser, precision
from mezzotint.errors import UsageError
from mezzotint.runtime import checking_layers

KEPT = 2
"""Compiled models, each with its own copy of the weights: a batch size, and a last smaller one."""


@dataclass(frozen=True)
class Compiled:
    """A denoiser compiled for one shape of its inputs, and the type of what it returns."""

    model: ov.CompiledModel
    output: type

    def run(self, denoiser: nn.Module, arguments: Arguments, dtype: torch.dtype) -> Any:
        """Compute the denoiser's output, in `dtype`."""
        inputs = [_array(tensor) for tensor in arguments.tensors]
        result, *same_tokens = self.model(inputs, share_inputs=True).values()
        if not all(same_tokens):
            checking_layers(denoiser)[0].token_check.tell()
        tensor = torch.from_numpy(result).to(dtype)
        if self.output is Tensor:
            return tensor
        if not arguments.return_dict or self.output is tuple:
            return (tensor,)
        return self.output(tensor)


class Compilations:
    """The compiled models of a denoiser, least recently used first; copies begin empty."""

    def __init__(self) -> None:
        self._models: OrderedDict[Hashable, Compiled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._models)

    @property
    def latest(self) -> Compiled | None:
        """The one used last; None before the first call."""
        return next(reversed(self._models.values()), None)

    def serve(self, denoiser: nn.Module, arguments: Arguments) -> Compiled:
        """The compiled model for such calls, made now if need be."""
        key = arguments.key, precision(denoiser), torch.get_num_threads()
        if key not in self._models:
            while len(self._models) >= KEPT:
                self._models.popitem(last=False)
            self._models[key] = Compiled(*compile_denoiser(denoiser, arguments))
        self._models.move_to_end(key)
        return self._models[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Compilations:
        return Compilations()

    def __copy__(self) -> Compilations:
        return Compilations()


def forward(denoiser: Any, *args: Any, **kwargs: Any) -> Any:
    """Replaces `forward` of the denoiser's class.

    Raises:
        UsageError: an argument is of no kind that can be compiled, or not on the CPU.
        ModelError: OpenVINO cannot convert the denoiser.
    """
    arguments = bind(denoiser, args, kwargs)
    for name, tensor in zip(arguments.names, arguments.tensors, strict=True):
        if tensor.device.type != "cpu":
            raise UsageError(
                f"{name}: is on {tensor.device}, but the openvino engine computes on the CPU; "
                "move the pipeline back, or give it the torch engine"
            )
    served: Compiled = denoiser.compilations.serve(denoiser, arguments)
    return served.run(denoiser, arguments, _output_dtype(arguments))


def _output_dtype(arguments: Arguments) -> torch.dtype:
    """Dtype of the latents, which come first."""
    return next(t.dtype for t in arguments.tensors if t.is_floating_point())


def _array(tensor: Tensor) -> Any:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous().numpy()
