"""How much every layer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from mezzotint.models import Graph
from mezzotint.plan import Choice
from mezzotint.runtime import Operation, part_inputs


def input_sizes(graph: Graph, choices: Mapping[str, Choice]) -> dict[str, int]:
    """Elements of every layer's input in one call, all of its runs and samples together.

    Constant tokens are not counted: no quantizer sees them. Layers that the call does not reach
    have 0.

    Args:
        graph: of the floating model, traced with the call.
        choices: the layers (Linear, Conv2d), and whether they have constant tokens; formats do not
            matter.

    Raises:
        PlanError: a layer with constant tokens has an input without tokens.
    """
    sizes = dict.fromkeys(choices, 0)
    for node in graph.runs:
        if node.name in choices:
            x = torch.empty(node.inputs[0].shape, device="meta")
            parts = part_inputs(x, choices[node.name], cast(Operation, node.operation))
            sizes[node.name] += sum(part.numel() for part in parts)
    return sizes
