"""Places of nodes in a picture: in rows along the data, in frames by block, in panels by place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from mezzotint.models.blocks import Block
from mezzotint.models.places import OUTSIDE
from mezzotint.models.weight_graph import CombineNode, WeightGraph, WeightNode

HEADING = 18.0
"""Height of a title, in pixels."""
MARGIN = 12.0
"""Room between a frame and what stands in it, and between neighbours."""
_NODE = 18.0
_CHARACTER = 6.2
_DROP = 24.0
"""Room for edges between one row and the next."""

Size = tuple[float, float]
Key = tuple[int, ...]
"""(index,) of a node or of a block's root; (index, row) of a stand-in."""


@dataclass(frozen=True)
class Box:
    """A rectangle, by its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Position of its vertical axis."""
        return self.x + self.width / 2

    def moved(self, x: float, y: float) -> Box:
        """The same one, further to the right and down."""
        return replace(self, x=self.x + x, y=self.y + y)


@dataclass(frozen=True)
class Panel:
    """The nodes of one place in the denoiser.

    Attributes:
        title: dotted name that its layers share.
        box: its frame.
        blocks: the blocks of several weights, each with its frame.
        nodes: index → box, of the nodes that stand here.
        sources: (source, reader) → box of what stands in for a source in another panel; several
            readers in one row share it.
    """

    title: str
    box: Box
    blocks: tuple[tuple[Block, Box], ...]
    nodes: Mapping[int, Box]
    sources: Mapping[tuple[int, int], Box]

    def moved(self, x: float, y: float) -> Panel:
        """The same one, further to the right and down."""
        return Panel(
            self.title,
            self.box.moved(x, y),
            tuple((block, box.moved(x, y)) for block, box in self.blocks),
            {index: box.moved(x, y) for index, box in self.nodes.items()},
            {edge: box.moved(x, y) for edge, box in self.sources.items()},
        )


def label(node: WeightNode | CombineNode, title: str | None = None) -> str:
    """The text in a node's box: its short name in the panel of that title, else its full one."""
    if isinstance(node, CombineNode):
        return node.kind if title is not None else f"{node.kind} in {node.name or 'the denoiser'}"
    return node.key.removeprefix(f"{title}.")


def panels_of(graph: WeightGraph, blocks: Sequence[Block]) -> tuple[Panel, ...]:
    """All panels in order of execution, in columns of about equal height."""
    panels = [_panel(graph, blocks, nodes) for nodes in _by_place(graph)]
    area = sum((panel.box.width + MARGIN) * (panel.box.height + MARGIN) for panel in panels)
    height = max(math.sqrt(area), *(panel.box.height for panel in panels), 0)
    placed: list[Panel] = []
    x, y, width = MARGIN, MARGIN, 0.0
    for panel in panels:
        if y + panel.box.height > height + MARGIN:
            x, y, width = x + width + MARGIN, MARGIN, 0.0
        placed.append(panel.moved(x, y))
        y += panel.box.height + MARGIN
        width = max(width, panel.box.width)
    return tuple(placed)


def _by_place(graph: WeightGraph) -> list[list[int]]:
    """Indices of the nodes of each place; what stands outside the blocks is before or after."""
    first = next((node.index for node in graph.weights if node.place != OUTSIDE), 0)

    groups: dict[tuple[object, ...], list[int]] = {}
    for node in graph.nodes:
        after = node.place == OUTSIDE and node.index > first
        groups.setdefault((node.place, after), []).append(node.index)
    return [*groups.values()]


def _title(graph: WeightGraph, nodes: Iterable[int]) -> str:
    found = map(graph.nodes.__getitem__, nodes)
    paths = [node.layer.split(".")[:-1] for node in found if isinstance(node, WeightNode)]
    shared = takewhile(lambda parts: len({*parts}) == 1, zip(*paths, strict=False))
    return ".".join(parts[0] for parts in shared)


def _panel(graph: WeightGraph, blocks: Sequence[Block], nodes: Sequence[int]) -> Panel:
    """The panel of some nodes, at the origin."""
    title, here = _title(graph, nodes), {*nodes}
    framed = [block for block in blocks if len(block.weights) > 1 and here >= {*block.weights}]
    owner = {index: block.root for block in reversed(framed) for index in _within(graph, block)}
    item = {index: owner.get(index, index) for index in nodes}
    """Node → what it is drawn in: its block, told by the root, or itself."""
    edges = [(source, reader) for source, reader in graph.edges if reader in here]
    sizes: dict[Key, Size] = {(index,): _size(label(graph.nodes[index], title)) for index in nodes}
    inner = {block.root: _inside(nodes, item, block.root, sizes, edges) for block in framed}

    between = [((item[s],), (item[r],)) for s, r in edges if s in here]
    rows = _ranks([(item[index],) for index in nodes], between)
    for block in framed:
        width, height = _extent(inner[block.root].values())
        sizes[block.root,] = width + 2 * MARGIN, height + MARGIN + HEADING
    strangers = {(source, rows[item[reader],]) for source, reader in edges if source not in here}
    if strangers:  # each in the row above its readers
        rows = {key: row + 1 for key, row in rows.items()}
        sizes |= {(source, row): _size(label(graph.nodes[source])) for source, row in strangers}
        rows |= {(source, row): row for source, row in sorted(strangers)}
    placed = _set(rows, sizes, between)
    width, height = _extent(placed.values())
    placed = {key: box.moved(MARGIN, MARGIN + HEADING) for key, box in placed.items()}

    def box(index: int) -> Box:
        root = owner.get(index)
        if root is None:
            return placed[index,]
        return inner[root][index,].moved(placed[root,].x + MARGIN, placed[root,].y + HEADING)

    return Panel(
        title,
        Box(0, 0, max(width, _size(title)[0]) + 3 * MARGIN, height + 2 * MARGIN + HEADING),
        tuple((block, placed[block.root,]) for block in framed),
        {index: box(index) for index in nodes},
        {(s, r): placed[s, rows[item[r],] - 1] for s, r in edges if s not in here},
    )


def _inside(
    nodes: Sequence[int],
    item: Mapping[int, int],
    root: int,
    sizes: Mapping[Key, Size],
    edges: Sequence[tuple[int, int]],
) -> dict[Key, Box]:
    """Boxes of the nodes of one block."""
    keys: list[Key] = [(index,) for index in nodes if item[index] == root]
    inside: list[tuple[Key, Key]] = [((source,), (reader,)) for source, reader in edges]
    return _set(_ranks(keys, inside), sizes, inside)


def _within(graph: WeightGraph, block: Block) -> frozenset[int]:
    """A block's weights, and the operations between them and its root."""
    reached = {index for w in block.weights for index in graph.descendants(w, block.hops)}
    joins = {node.index for node in graph.combines}
    return frozenset(block.weights) | (reached & {*block.members} & joins)


def _size(text: str) -> Size:
    return len(text) * _CHARACTER + MARGIN, _NODE


def _ranks(keys: Iterable[Key], edges: Iterable[tuple[Key, Key]]) -> dict[Key, int]:
    """The row of each, below all that it reads.

    Edges against the given order, which cycles have, are passed over.
    """
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    ranks = dict.fromkeys(order, 0)
    for source, reader in sorted(
        ((s, r) for s, r in edges if order.get(s, math.inf) < order.get(r, -1)),
        key=lambda edge: order[edge[1]],
    ):
        ranks[reader] = max(ranks[reader], ranks[source] + 1)
    return ranks


def _set(
    ranks: Mapping[Key, int], sizes: Mapping[Key, Size], edges: Iterable[tuple[Key, Key]]
) -> dict[Key, Box]:
    """Boxes in rows, each row in the middle, and in the order of what it reads above."""
    above: dict[Key, list[Key]] = {key: [] for key in ranks}
    for source, reader in edges:
        if source in ranks and reader in ranks and ranks[source] < ranks[reader]:
            above[reader].append(source)
    rows = [[key for key in ranks if ranks[key] == row] for row in sorted({*ranks.values()})]
    widths = [sum(sizes[key][0] + MARGIN for key in row) - MARGIN for row in rows]
    boxes: dict[Key, Box] = {}
    y = 0.0
    for row, width in zip(rows, widths, strict=True):
        x, height = (max(widths) - width) / 2, max(sizes[key][1] for key in row)
        middles = {key: _middle([boxes[source] for source in above[key]]) for key in row}
        for key in sorted(row, key=middles.__getitem__):
            boxes[key] = Box(x, y + height - sizes[key][1], *sizes[key])
            x += sizes[key][0] + MARGIN
        y += height + _DROP
    return boxes


def _middle(boxes: Sequence[Box]) -> float:
    """The best position for what reads these boxes; at the end, if there are none."""
    return sum(box.middle for box in boxes) / len(boxes) if boxes else math.inf


def _extent(boxes: Iterable[Box]) -> Size:
    boxes = list(boxes)
    return max(box.right for box in boxes), max(box.bottom for box in boxes)
