"""Layers of a denoiser that no plan can pack, as they stand in one."""

from __future__ import annotations

from torch import nn

from mezzotint.models import Graph, layers_in
from mezzotint.plan import Choice

NOT_PACKED = (
    "stays floating: only Linear and Conv2d layers that the denoiser runs as such can be packed"
)


def add_unpacked(
    choices: dict[str, Choice], reasons: dict[str, str], denoiser: nn.Module, graph: Graph
) -> None:
    """Add every Linear or Conv layer that has no choice yet, floating, and say why it is."""
    for layer in layers_in(denoiser, graph):
        if layer.name not in choices:
            choices[layer.name] = Choice()
            reasons[layer.name] = NOT_PACKED
