"""Tracing of one call of a denoiser into its data-flow graph."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mezzotint.errors import ModelError
from mezzotint.models.calls import Call, device_of, output_tensor
from mezzotint.models.examples import example_call
from mezzotint.models.flow import Flow
from mezzotint.models.graph import Graph
from mezzotint.models.kinds import WeightLayer, weight_layers, weight_parameter
from mezzotint.models.skeleton import skeleton
from mezzotint.models.torch_functions import tensors_in


def trace_graph(denoiser: nn.Module, call: Call | None = None) -> Graph:
    """The data-flow graph of one call of `denoiser`.

    The call runs on the meta device, which computes shapes only, with the shapes of `call` or else
    of `example_call(denoiser)`. Where a model's code looks at values, which meta tensors lack,
    `call` is run for real.

    Values that leave torch, as Python numbers or NumPy arrays, are not followed: what is made of
    them counts as constant, and `Graph.left` names the modules that do so. A module whose output is
    made outside torch altogether counts as one operation on all that it is given.

    Raises:
        ModelError: the denoiser cannot be run on `call` (the message names the module that fails);
            or there is none, and no example can be
            made of the denoiser's arguments, or its code cannot be followed by shapes alone.
    """
    # Inference tensors do not tell whether they have been written to.
    with torch.inference_mode(False), torch.no_grad():
        if call is None:
            return _trace(skeleton(denoiser), example_call(denoiser))
        try:
            return _trace(skeleton(denoiser), call.to("meta"))
        except ModelError:
            return _trace(denoiser, call.to(device_of(denoiser)))


def _trace(denoiser: nn.Module, call: Call) -> Graph:
    flow = Flow(denoiser)
    call = call.copied()  # followed from these very tensors, which the model may change
    try:
        for name, tensors in _arguments(denoiser, call).items():
            flow.argument(name, tensors)
        with flow.watching():
            output = output_tensor(denoiser(*call.args, **call.kwargs))
    except Exception as cause:  # whatever a model's own code may raise
        place = f"in {flow.module}: " if flow.module else ""
        raise ModelError(
            f"{type(denoiser).__name__} cannot be run on the given call ({place}{cause}); "
            "record a call from its own pipeline"
        ) from cause
    layers, end = dict(weight_layers(denoiser)), flow.origin(output)
    return flow.builder.graph(end.node, layers, _tied(layers), flow.left, flow.sole_readers(end))


def _tied(layers: Mapping[str, WeightLayer]) -> dict[str, str]:
    """Layer → the first layer that has the very same weight, if that is another."""
    first: dict[nn.Parameter, str] = {}
    tied: dict[str, str] = {}
    for name, layer in layers.items():
        weight = weight_parameter(layer)
        if weight is not None and first.setdefault(weight, name) != name:
            tied[name] = first[weight]
    return tied


def _arguments(denoiser: nn.Module, call: Call) -> dict[str, list[Tensor]]:
    """The tensors of each argument by its name; the items of a dictionary are arguments, too."""
    signature = inspect.signature(denoiser.forward)
    found: dict[str, list[Tensor]] = {}
    for name, value in signature.bind(*call.args, **call.kwargs).arguments.items():
        if not isinstance(value, Mapping):
            found[name] = [*tensors_in(value)]
            continue
        gathered = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        for key, item in value.items():
            found[f"{key}" if gathered else f"{name}.{key}"] = [*tensors_in(item)]
    return {name: tensors for name, tensors in found.items() if tensors}
