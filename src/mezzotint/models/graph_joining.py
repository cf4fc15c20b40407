"""Data-flow graphs of several calls as one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from mezzotint.models.calls import Call
from mezzotint.models.graph import Graph, Node, NodeInput
from mezzotint.models.joint import first_calls
from mezzotint.models.tracing import trace_graph


def trace_calls(denoiser: nn.Module, calls: Sequence[Call]) -> Graph:
    """The data-flow graph of the first call, or of the first of each component of a joint module.

    Raises:
        ModelError: the denoiser cannot be run on a call; the message names the module that fails.
        UsageError: there is no call of a component.
    """
    return joined_graphs([trace_graph(denoiser, call) for call in first_calls(denoiser, calls)])


def joined_graphs(graphs: Sequence[Graph]) -> Graph:
    """One graph of the nodes of several, one after another; the output is the last one's.

    A layer is idle where all say so. Of a norm that several tell the readers of, the first counts.
    """
    if len(graphs) == 1:
        return graphs[0]
    nodes: list[Node] = []
    tensors = 0
    for graph in graphs:
        first = len(nodes)
        nodes += [_moved(node, first, tensors) for node in graph.nodes]
        tensors += 1 + max((node.tensor or 0 for node in graph.nodes), default=0)
    last = graphs[-1].output
    offset = len(nodes) - len(graphs[-1].nodes)
    return Graph(
        nodes=tuple(nodes),
        output=None if last is None else last + offset,
        idle=tuple(name for name in graphs[0].idle if all(name in each.idle for each in graphs)),
        tied={key: name for each in reversed(graphs) for key, name in each.tied.items()},
        left=tuple(dict.fromkeys(name for each in graphs for name in each.left)),
        norms={key: names for each in reversed(graphs) for key, names in each.norms.items()},
    )


def _moved(node: Node, first: int, tensors: int) -> Node:
    """A node behind `first` others, that have read `tensors` tensors."""
    inputs = tuple(
        NodeInput(read.shape, None if read.source is None else read.source + first)
        for read in node.inputs
    )
    tensor = None if node.tensor is None else node.tensor + tensors
    return replace(node, inputs=inputs, tensor=tensor)
