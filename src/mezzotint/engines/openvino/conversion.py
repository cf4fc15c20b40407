"""A denoiser and one call in; an OpenVINO model out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import openvino as ov
import torch
from openvino import opset13 as ops
from openvino.frontend import (
    FrontEndManager,
    GeneralFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
from openvino.frontend.pytorch import ConversionExtension, ModuleExtension
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn
from typing_extensions import override

from mezzotint.engines.openvino.arguments import Arguments
from mezzotint.engines.openvino.layer_nodes import packed_subgraph
from mezzotint.engines.openvino.stand_in import StandIn, stand_in
from mezzotint.engines.openvino.token_nodes import TokenNodes
from mezzotint.engines.variant import base_class
from mezzotint.errors import ModelError
from mezzotint.runtime import PackedLayer, packed_layers

_FAILURES = (
    RuntimeError,
    GeneralFailure,
    NotImplementedFailure,
    OpConversionFailure,
    OpValidationFailure,
)
"""Errors of OpenVINO's front end; those of its own are no RuntimeErrors."""


class Traced(nn.Module):
    """The denoiser with tensors in and one tensor out.

    Attributes:
        output: the type of what the denoiser returned when traced.
    """

    def __init__(self, denoiser: nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.denoiser = denoiser
        self._arguments = arguments
        self.output: type = tuple

    @override
    def forward(self, *tensors: Tensor) -> Tensor:
        output = self.denoiser(**self._arguments.filled(tensors))
        self.output = type(output)
        if isinstance(output, Tensor):
            return output
        if len(output) != 1 or not isinstance(output[0], Tensor):
            raise ModelError(
                f"{type(self.denoiser).__name__} returns more than one tensor; the openvino engine "
                "serves denoisers that return one, use the torch engine"
            )
        return output[0]


@torch.no_grad()
def converted(denoiser: nn.Module, arguments: Arguments) -> tuple[ov.Model, type]:
    """An OpenVINO model of the denoiser for calls like this one, and the type of its output.

    Packed layers enter it as they are: the model never exists in floating point. All shapes are
    fixed, so that code which looks at shapes is right. Where layers know first tokens, a second
    output says whether all of the call's are these.

    Raises:
        ModelError: the denoiser returns several tensors, or has an operation that OpenVINO does
            not know.
    """
    names = {id(layer): name for name, layer in packed_layers(denoiser).items()}
    traced = Traced(_floating_twin(denoiser), arguments).eval()
    frontend = FrontEndManager().load_by_framework("pytorch")
    modules: dict[nn.Module, ModuleExtension] = {}
    tokens = TokenNodes()
    for module in traced.modules():
        if isinstance(module, StandIn):
            layer = module.stood_for
            operation = f"mezzotint::layer{len(modules)}"
            modules[module] = ModuleExtension(module, operation, convert=_alone)
            convert = _converter(layer, names[id(layer)], tokens)
            frontend.add_extension(ConversionExtension(operation, convert))
    tensors = [_float32(tensor) for tensor in arguments.tensors]
    try:
        # It must live as long as the conversion: OpenVINO keeps no reference of its own.
        decoder = _decoder(traced, tensors, modules)
        model = frontend.convert(frontend.load(decoder))
    except _FAILURES as cause:
        # The denoiser itself raised something while it was traced.
        origin = cause.__cause__
        if origin is not None and not isinstance(origin, RuntimeError):
            raise origin from cause
        raise ModelError(
            f"{base_class(denoiser).__name__}: OpenVINO cannot convert it "
            f"({_gist(origin or cause)}); use the torch engine"
        ) from cause
    same = tokens.all_same
    if same is not None:
        model.add_results([ops.result(same)])
    model.reshape({i: list(tensor.shape) for i, tensor in enumerate(tensors)})
    return model, traced.output


# OpenVINO passes arguments on as the model gave them: by position, or by the layer's own keyword.
def _alone(module: nn.Module, operation: Callable[..., Any], input: Tensor) -> Any:  # noqa: A002
    return operation(input)


def _converter(layer: PackedLayer, name: str, tokens: TokenNodes) -> Callable[[Any], Any]:
    return lambda context: packed_subgraph(layer, name, context.get_input(0), tokens).outputs()


def _floating_twin(denoiser: nn.Module) -> nn.Module:
    """The denoiser in float32 with stand-ins, of its own class; float32 weights are shared."""
    replaced: dict[int, Any] = {
        id(layer): stand_in(layer) for layer in packed_layers(denoiser).values()
    }
    for tensor in (*denoiser.parameters(), *denoiser.buffers()):
        if tensor.dtype == torch.float32:
            replaced[id(tensor)] = tensor
    twin = copy.deepcopy(denoiser, replaced)
    twin.__class__ = base_class(denoiser)
    # diffusers forbids its own `float` on quantized models; what is packed is not in there.
    return nn.Module.float(twin)


def _decoder(
    traced: Traced, tensors: Sequence[Tensor], modules: dict[nn.Module, ModuleExtension]
) -> TorchScriptPythonDecoder:
    with warnings.catch_warnings():
        # The tracer warns of code that looks at shapes, and of its own age.
        warnings.simplefilter("ignore")
        return TorchScriptPythonDecoder(
            traced,
            example_input=tuple(tensors),
            module_extensions=modules,
            trace_kwargs={"check_trace": False},
        )


def _gist(error: BaseException) -> str:
    """The last line that says anything: before it come places in OpenVINO's own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
