"""Small models whose labels are computed from a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mezzotint.models import CombineNode, Role, WeightGraph, WeightNode, blocks_of
from mezzotint.predictors import Dataset
from mezzotint.predictors.dataset import choosing

FORMATS = (
    "kmeans3/channel",
    "kmeans4/channel",
    "kmeans3/tensor",
    "kmeans4/tensor",
    "uint3/channel",
    "uint4/channel",
)

PARTS = {
    "attn1.to_q": (Role.SELF_ATTENTION_Q, 64),
    "attn1.to_k": (Role.SELF_ATTENTION_K, 64),
    "attn1.to_v": (Role.SELF_ATTENTION_V, 64),
    "attn1.to_out.0": (Role.SELF_ATTENTION_OUT, 64),
    "ff.net.0.proj": (Role.FEED_FORWARD_IN, 256),
    "ff.net.2": (Role.FEED_FORWARD_OUT, 256),
}


class Drawing:
    """A graph while it is drawn."""

    def __init__(self):
        self.nodes, self.edges = [], []

    def weight(self, name, role, width, place, *sources, quantizable=True):
        layer = WeightNode(
            len(self.nodes),
            name,
            name,
            role,
            "linear",
            width * 64,
            64,
            width,
            (place, 0, 0),
            quantizable,
        )
        return self._add(layer, sources)

    def part(self, part, place, *sources):
        return self.weight(f"blocks.{place - 1}.{part}", *PARTS[part], place, *sources)

    def combine(self, kind, place, *sources):
        return self._add(CombineNode(len(self.nodes), kind, "", (place, 0, 0)), sources)

    def _add(self, node, sources):
        self.nodes.append(node)
        self.edges.extend((source, node.index) for source in sorted(sources))
        return node.index

    def graph(self):
        return WeightGraph(tuple(self.nodes), tuple(self.edges))


def transformer(blocks=2, *, free_input=True):
    """A graph of self-attentions and feed-forwards, with the blocks in it."""
    draw = Drawing()
    stream = draw.weight("proj_in", Role.INPUT, 8, 0, quantizable=free_input)
    for place in range(1, blocks + 1):
        q, k, v = (draw.part(f"attn1.to_{part}", place, stream) for part in "qkv")
        mixed = draw.combine("matmul", place, draw.combine("matmul", place, q, k), v)
        out = draw.part("attn1.to_out.0", place, mixed)
        stream = draw.combine("add", place, stream, out)
        up = draw.part("ff.net.0.proj", place, stream)
        stream = draw.combine("add", place, stream, draw.part("ff.net.2", place, up))
    draw.weight("proj_out", Role.OUTPUT, 8, 0, stream)
    graph = draw.graph()
    return graph, blocks_of(graph)


def dataset_of(graph, count=100, *, noise=0.0, seed=0, formats=FORMATS):
    """Labels that are a sum over layers, with layers twice as sensitive as others by turns.

    What single choices cost is known as `noises`; labels bring a product of neighbours on top.
    """
    generator = np.random.default_rng(seed)
    nodes = choosing(graph)
    sizes = np.array([node.weights for node in nodes], float)
    three = np.array([name[6 if name.startswith("k") else 4] == "3" for name in formats])
    widths = np.where(three, 3, 4)
    overhead = np.array([32 if "channel" in name else 1 for name in formats])
    stored = sizes[:, None] * widths / 8 + overhead
    errors = np.where(three, 0.02, 0.004) * generator.uniform(0.5, 2, (len(nodes), len(formats)))
    noises = errors * sizes[:, None] / sizes.sum() * generator.lognormal(0, 1, (len(nodes), 1))
    share = generator.random((count, 1))
    rows = np.where(
        generator.random((count, len(nodes))) < share,
        generator.choice(np.flatnonzero(three), (count, len(nodes))),
        generator.choice(np.flatnonzero(~three), (count, len(nodes))),
    )
    taken = noises[np.arange(len(nodes)), rows]
    values = taken.sum(1) + 4 * (taken[:, 1:] * taken[:, :-1]).sum(1) ** 0.5
    values = values * np.exp(noise * generator.standard_normal(count))
    return Dataset(graph, tuple(formats), rows, values, stored, errors, noises)


def with_values(dataset, values):
    return replace(dataset, values=np.asarray(values, float))
