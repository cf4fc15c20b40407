"""Layers whose input is two tensors joined: each half has a range of its own.

The skip connections of a U-Net reach `conv_shortcut` that way, and so do the attention and the
feed-forward of FLUX's parallel blocks their common output projection.
"""

from __future__ import annotations

from mezzotint.models.graph import Graph


def joined_inputs(graph: Graph) -> dict[str, int]:
    """Layers (Linear, Conv2d) that read two tensors joined along the channels, nothing between.

    Returns:
        Layer name → channels of the first tensor (MixDQ, section 3: the shortcut's split).
    """
    return {
        node.name: node.sections[0]
        for node in graph.runs
        if node.operation in ("linear", "conv2d") and len(node.sections) == 2
    }
