"""Small models whose labels are computed from a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mezzotint.models import Block, BlockKind, CombineNode, Role, WeightGraph, WeightNode
from mezzotint.predictors import Dataset

FORMATS = (
    "kmeans3/channel",
    "kmeans4/channel",
    "kmeans3/tensor",
    "kmeans4/tensor",
    "uint3/channel",
    "uint4/channel",
)

PARTS = (
    (Role.SELF_ATTENTION_Q, 64),
    (Role.SELF_ATTENTION_K, 64),
    (Role.SELF_ATTENTION_V, 64),
    (Role.SELF_ATTENTION_OUT, 64),
    (Role.FEED_FORWARD_IN, 256),
    (Role.FEED_FORWARD_OUT, 256),
)


def transformer(blocks=3):
    """A graph of self-attentions and feed-forwards: q, k ▶ matmul, v ▶ matmul ▶ out ▶ add, …"""
    nodes, edges, found = [], [], []

    def weight(role, width, place):
        index = len(nodes)
        key = f"blocks.{place - 1}.{role}" if place else str(role)
        nodes.append(
            WeightNode(index, key, key, role, "linear", width * 64, 64, width, (place, 0, 0))
        )
        return index

    def combine(kind, *sources, place=0):
        index = len(nodes)
        nodes.append(CombineNode(index, kind, "", (place, 0, 0)))
        edges.extend((source, index) for source in sources)
        return index

    first = weight(Role.INPUT, 8, 0)
    found.append(single("input", first))
    previous = first
    for place in range(1, blocks + 1):
        q, k, v, out, up, down = (len(nodes) + step for step in (0, 1, 3, 5, 7, 8))
        for role, width in PARTS[:2]:
            edges.append((previous, weight(role, width, place)))
        combine("matmul", q, k, place=place)
        edges.append((previous, weight(*PARTS[2], place)))
        combine("matmul", v - 1, v, place=place)
        weight(*PARTS[3], place)
        edges.append((out - 1, out))
        joined = combine("add", previous, out, place=place)
        edges.append((joined, weight(*PARTS[4], place)))
        edges.append((up, weight(*PARTS[5], place)))
        previous = combine("add", joined, down, place=place)
        found.append(("self_attention", f"attention {place}", out, 3, (q, k, v, out)))
        found.append(("feed_forward", f"feed-forward {place}", down, 1, (up, down)))
    edges.append((previous, weight(Role.OUTPUT, 8, 0)))
    found.append(single("output", len(nodes) - 1))
    graph = WeightGraph(tuple(nodes), tuple(sorted(edges, key=lambda edge: edge[::-1])))
    return graph, tuple(
        Block(BlockKind(kind), name, root, hops, weights, sorted_ancestors(graph, root, hops))
        for kind, name, root, hops, weights in found
    )


def single(name, index):
    return ("layer", name, index, 0, (index,))


def sorted_ancestors(graph, root, hops):
    return tuple(sorted(graph.ancestors(root, hops)))


def dataset_of(graph, count=100, *, noise=0.0, seed=0, formats=FORMATS):
    """Labels that are a sum over layers, with layers twice as sensitive as others by turns.

    What single choices cost is known as `noises`; labels bring a product of neighbours on top.
    """
    generator = np.random.default_rng(seed)
    nodes = graph.weights
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
