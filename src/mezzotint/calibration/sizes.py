"""Sizes of the inputs of every layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mezzotint.models import Graph
from mezzotint.plan import Choice, LayerShape
from mezzotint.runtime import part_inputs, shape_of, structure_tensors


def input_sizes(denoiser: nn.Module, graph: Graph, choices: Mapping[str, Choice]) -> dict[str, int]:
    """Elements of every layer's input in one call, all of its runs and samples together.

    Only what a quantizer sees is counted, as the layer's structures say. Layers that the call does
    not reach have 0.

    Args:
        denoiser: the floating model.
        graph: of it, traced with the call.
        choices: the layers (Linear, Conv2d), and which structures they have; formats do not
            matter.

    Raises:
        PlanError: a structure does not go with a layer or its input.
    """
    sizes = dict.fromkeys(choices, 0)
    for node in graph.runs:
        if node.name in choices:
            shape = shape_of(denoiser.get_submodule(node.name))
            x = torch.empty(node.inputs[0].shape, device="meta")
            sizes[node.name] += _elements_read(x, choices[node.name], shape)
    return sizes


def _elements_read(x: Tensor, choice: Choice, shape: LayerShape) -> int:
    # Shapes do not depend on values, so nothing has to be calibrated for them.
    with torch.device("meta"):
        specs = structure_tensors(choice.structures, shape)
        own = {name: spec.zeros() for name, spec in specs.items()}
    return sum(part.numel() for part in part_inputs(x, choice.structures, shape, own))
