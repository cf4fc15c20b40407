"""Blocks: weights that are scored together, found by their roles.

A block is read at its *root*, the nearest node that all of its weights get to, after as many layers
of message passing as the farthest of them is edges away: its *hops*. All nodes within that distance
are its members, other blocks' weights and operations included. What the root knows after so many
layers depends on them alone, so the score of a block by itself is its score in the whole graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mezzotint.models.places import OUTSIDE
from mezzotint.models.roles import Role
from mezzotint.models.units import unit_of
from mezzotint.models.weight_graph import WeightGraph, WeightNode

MAX_HOPS = 4
"""Layers of message passing that the predictor has."""


class BlockKind(StrEnum):
    """The weights that a block holds."""

    SELF_ATTENTION = "self_attention"
    """Projections of self-attention, and where wanted the modulation of its input."""
    CROSS_ATTENTION = "cross_attention"
    """Projections of cross-attention, where the text is an argument."""
    CROSS_ATTENTION_SCORES = "cross_attention_scores"
    """Those to queries and keys, where layers have a part in the text."""
    CROSS_ATTENTION_VALUES = "cross_attention_values"
    """Those to values and to the output, likewise."""
    JOINT_ATTENTION = "joint_attention"
    """Projections of the text's side of joint attention."""
    FEED_FORWARD = "feed_forward"
    RESIDUAL_BLOCK = "residual_block"
    """Convolutions and time projection; the shortcut is a block of its own."""
    TIME_EMBEDDING = "time_embedding"
    """Embeddings of timestep, guidance and sizes, and a modulation that all blocks share."""
    TEXT_EMBEDDING = "text_embedding"
    """Layers in a row that bring one text embedding to the denoiser's width."""
    LAYER = "layer"
    """One layer, or both halves of one whose input is split."""


@dataclass(frozen=True)
class Block:
    """Weights that are scored together.

    Attributes:
        kind: what they are.
        name: dotted name of the module that they share; of the layer, of one layer. A kind and a
            name together name one block.
        root: index of the node whose embedding is the score's.
        hops: edges from the farthest of its weights to the root.
        weights: their indices.
        members: indices of all nodes within `hops` of the root: those of `weights` among them.
    """

    kind: BlockKind
    name: str
    root: int
    hops: int
    weights: tuple[int, ...]
    members: tuple[int, ...]


def blocks_of(graph: WeightGraph, *, modulation: bool = True) -> tuple[Block, ...]:
    """The blocks of a graph, in order of their first weights; each weight is in exactly one.

    Weights that are too far from the others' root for `MAX_HOPS` layers are blocks of their own.

    Args:
        graph: the weights and what joins them.
        modulation: layers that modulate the input of self-attention belong to its block; else each
            is a block of its own.
    """
    groups = _by_role(graph)
    for node in graph.weights:
        if node.role is Role.MODULATION:
            key = _modulated(graph, groups, node, attention=modulation)
            groups[key].append(node.index)
    blocks = [
        block for (kind, name), weights in groups.items()
        for block in _blocks(graph, kind, name, weights)
    ]  # fmt: skip
    return tuple(sorted(blocks, key=lambda block: block.weights))


_Groups = defaultdict[tuple[BlockKind, str], list[int]]
"""Kind and name of a block → the indices of its weights."""


def _by_role(graph: WeightGraph) -> _Groups:
    """All weights but modulations."""
    # Where layers have a part in the text, it is among the predecessors of keys and values.
    texts = {
        unit_of(node.layer, node.role)
        for node in graph.weights
        if node.role in (Role.CROSS_ATTENTION_K, Role.CROSS_ATTENTION_V)
        and graph.predecessors[node.index]
    }
    groups: _Groups = defaultdict(list)
    for node in graph.weights:
        if node.role is not Role.MODULATION:
            groups[_kind(node, texts)].append(node.index)
    return groups


def _kind(node: WeightNode, texts: Container[str]) -> tuple[BlockKind, str]:
    """Kind and name of the block that a weight belongs to by its role."""
    unit = unit_of(node.layer, node.role)
    if node.role is Role.TIME_EMBEDDING:
        # All that stand outside the blocks are added up, as a rule.
        kind = BlockKind.TIME_EMBEDDING
        return kind, (kind.value if node.place == OUTSIDE else unit)
    if node.role in _KINDS:
        return _KINDS[node.role], unit
    if node.role.startswith("cross_attention") and unit in texts:
        return _DIVIDED[node.role], unit
    for kind in _ALIKE:
        if node.role.startswith(kind):
            return kind, unit
    return BlockKind.LAYER, node.layer


_KINDS = {
    Role.TEXT_PROJECTION: BlockKind.TEXT_EMBEDDING,
    Role.RESNET_CONV: BlockKind.RESIDUAL_BLOCK,
    Role.TIME_PROJECTION: BlockKind.RESIDUAL_BLOCK,
}
_DIVIDED = {
    Role.CROSS_ATTENTION_Q: BlockKind.CROSS_ATTENTION_SCORES,
    Role.CROSS_ATTENTION_K: BlockKind.CROSS_ATTENTION_SCORES,
    Role.CROSS_ATTENTION_QKV: BlockKind.CROSS_ATTENTION_VALUES,
    Role.CROSS_ATTENTION_V: BlockKind.CROSS_ATTENTION_VALUES,
    Role.CROSS_ATTENTION_OUT: BlockKind.CROSS_ATTENTION_VALUES,
}
_ATTENTIONS = (BlockKind.SELF_ATTENTION, BlockKind.JOINT_ATTENTION)
_ALIKE = (*_ATTENTIONS, BlockKind.CROSS_ATTENTION, BlockKind.FEED_FORWARD)
"""Kinds whose names begin those of their roles."""


def _modulated(
    graph: WeightGraph, groups: _Groups, node: WeightNode, *, attention: bool
) -> tuple[BlockKind, str]:
    """Kind and name of the block that a modulation belongs to.

    One that stands outside the blocks and is read in several of them completes the time embedding.
    One whose result a self-attention reads, past one operation, belongs to that where it is wanted.
    """
    if node.place == OUTSIDE and len(graph.successors[node.index]) > 1:
        kinds: tuple[BlockKind, ...] = (BlockKind.TIME_EMBEDDING,)
        near = graph.ancestors(node.index, MAX_HOPS)
    else:
        kinds = _ATTENTIONS if attention else ()
        near = frozenset(graph.descendants(node.index, 2))
    for (kind, name), weights in groups.items():
        together = [*weights, node.index]
        if kind in kinds and near.intersection(weights) and _root(graph, together).covers(together):
            return kind, name
    return BlockKind.LAYER, node.layer


@dataclass(frozen=True)
class _Root:
    """A node, the weights that get to it, and the farthest one's distance."""

    index: int
    hops: int
    near: tuple[int, ...]

    def covers(self, weights: Sequence[int]) -> bool:
        return len(self.near) == len(weights)


def _root(graph: WeightGraph, weights: Sequence[int]) -> _Root:
    """The node that most of the weights get to, over the fewest edges; of equals the first."""
    reached = {weight: graph.descendants(weight, MAX_HOPS) for weight in weights}

    def root(index: int) -> _Root:
        near = tuple(weight for weight in sorted(weights) if index in reached[weight])
        return _Root(index, max(reached[weight][index] for weight in near), near)

    nodes = {index for found in reached.values() for index in found}
    return min(map(root, nodes), key=lambda root: (-len(root.near), root.hops, root.index))


def _blocks(
    graph: WeightGraph, kind: BlockKind, name: str, weights: Sequence[int]
) -> Iterator[Block]:
    """One block, and others of those weights that have no root in common with most."""
    root = _root(graph, weights)
    layers = {_weight(graph, index).layer for index in root.near}
    if len(layers) == 1:
        kind, name = BlockKind.LAYER, *layers
    members = graph.ancestors(root.index, root.hops)
    yield Block(kind, name, root.index, root.hops, root.near, tuple(sorted(members)))
    rest: _Groups = defaultdict(list)
    for index in weights:
        if index not in root.near:
            node = _weight(graph, index)
            unit = unit_of(node.layer, node.role)
            rest[(BlockKind.LAYER, node.layer) if unit == name else (kind, unit)].append(index)
    for (other, unit), left in rest.items():
        yield from _blocks(graph, other, unit, left)


def _weight(graph: WeightGraph, index: int) -> WeightNode:
    node = graph.nodes[index]
    assert isinstance(node, WeightNode)
    return node
