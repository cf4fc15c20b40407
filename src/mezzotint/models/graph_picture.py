"""A graph of weights as a picture in SVG, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mezzotint._files import replacing
from mezzotint.models.blocks import Block, BlockKind
from mezzotint.models.graph_layout import HEADING, MARGIN, Box, Panel, label, panels_of
from mezzotint.models.weight_graph import CombineNode, WeightGraph, WeightNode

_COLOURS = {
    BlockKind.SELF_ATTENTION: "#cfe2f3",
    BlockKind.CROSS_ATTENTION: "#d9ead3",
    BlockKind.CROSS_ATTENTION_SCORES: "#d9ead3",
    BlockKind.CROSS_ATTENTION_VALUES: "#c3e0d8",
    BlockKind.JOINT_ATTENTION: "#dcd6ee",
    BlockKind.FEED_FORWARD: "#fff2cc",
    BlockKind.RESIDUAL_BLOCK: "#fce5cd",
    BlockKind.TIME_EMBEDDING: "#f4cccc",
    BlockKind.TEXT_EMBEDDING: "#ead1dc",
    BlockKind.LAYER: "#eeeeee",
}
_STYLE = """
text { font: 11px sans-serif; fill: #222; text-anchor: middle; dominant-baseline: central }
.title { font-weight: bold; text-anchor: start } .kind { fill: #666; text-anchor: start }
.panel { fill: #fff; stroke: #bbb } .block { stroke: #999 } .weight { fill: #fff; stroke: #333 }
.combine { fill: #444; stroke: #444 } .combine-label { fill: #fff } .root { stroke-width: 2.5 }
.source { fill: #fff; stroke: #999; stroke-dasharray: 3 2 } .source-label { fill: #666 }
path { fill: none; stroke: #777; marker-end: url(#arrow) }
"""


def save_picture(graph: WeightGraph, blocks: Sequence[Block], path: Path) -> None:
    """Draw a graph as SVG.

    A panel is a place in the denoiser, a coloured frame in it a block of several weights. Weights
    are white, operations that join are dark, roots have a thick edge, and data flows downwards.
    Dashed boxes stand for nodes of other panels.
    """
    panels = panels_of(graph, blocks)
    width = max((panel.box.x + panel.box.width for panel in panels), default=0) + MARGIN
    height = max((panel.box.y + panel.box.height for panel in panels), default=0) + MARGIN
    svg = ElementTree.Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
    )
    ElementTree.SubElement(svg, "style").text = _STYLE
    _arrow(svg)
    roots = {block.root for block in blocks}
    for panel in panels:
        _panel(svg, graph, panel, roots)
    with replacing(path) as temporary:
        ElementTree.ElementTree(svg).write(temporary, "utf-8", xml_declaration=True)


def _arrow(svg: ElementTree.Element) -> None:
    definitions = ElementTree.SubElement(svg, "defs")
    marker = ElementTree.SubElement(
        definitions, "marker", id="arrow", viewBox="0 0 6 6", refX="6", refY="3",
        markerWidth="6", markerHeight="6", orient="auto",
    )  # fmt: skip
    ElementTree.SubElement(marker, "polygon", points="0,0 6,3 0,6", fill="#777")


def _panel(svg: ElementTree.Element, graph: WeightGraph, panel: Panel, roots: set[int]) -> None:
    group = ElementTree.SubElement(svg, "g")
    _rectangle(group, panel.box, "panel")
    _text(group, panel.box.x + MARGIN, panel.box.y + MARGIN + 2, panel.title, "title")
    for block, box in panel.blocks:
        frame = _rectangle(group, box, "block")
        frame.set("fill", _COLOURS[block.kind])
        _text(group, box.x + 6, box.y + HEADING / 2, block.kind.replace("_", " "), "kind")
    for source, reader in graph.edges:
        if reader in panel.nodes:
            start = panel.sources.get((source, reader)) or panel.nodes[source]
            _edge(group, start, panel.nodes[reader], panel)
    for index, box in {(source, box) for (source, _), box in panel.sources.items()}:
        _rectangle(group, box, "source")
        _label(group, box, label(graph.nodes[index]), "source-label")
    for index, box in panel.nodes.items():
        _node(group, graph.nodes[index], box, panel.title, root=index in roots)


def _node(
    group: ElementTree.Element,
    node: WeightNode | CombineNode,
    box: Box,
    title: str,
    *,
    root: bool,
) -> None:
    kind = "weight" if isinstance(node, WeightNode) else "combine"
    found = _rectangle(group, box, f"{kind} root" if root else kind)
    about = ElementTree.SubElement(found, "title")
    if isinstance(node, WeightNode):
        about.text = f"{node.key}: {node.role}, {node.operation}, {node.weights:,} weights"
    else:
        about.text = label(node)
    _label(group, box, label(node, title), f"{kind}-label")


def _rectangle(group: ElementTree.Element, box: Box, style: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        group, "rect", {"class": style}, x=f"{box.x:.1f}", y=f"{box.y:.1f}", rx="3",
        width=f"{box.width:.1f}", height=f"{box.height:.1f}",
    )  # fmt: skip


def _label(group: ElementTree.Element, box: Box, text: str, style: str) -> None:
    _text(group, box.x + box.width / 2, box.y + box.height / 2, text, style)


def _text(group: ElementTree.Element, x: float, y: float, text: str, style: str) -> None:
    found = ElementTree.SubElement(group, "text", {"class": style}, x=f"{x:.1f}", y=f"{y:.1f}")
    found.text = text


def _edge(group: ElementTree.Element, source: Box, reader: Box, panel: Panel) -> None:
    """An arrow downwards; on the right of all that stands between, if that would hide it."""
    low, high = sorted((source.middle, reader.middle))
    between = [
        box
        for box in panel.nodes.values()
        if source.bottom < box.bottom and box.y < reader.y and box not in (source, reader)
    ]
    if source.bottom < reader.y and not any(b.x < high + 1 and b.right > low - 1 for b in between):
        x, y, to_x, to_y = source.middle, source.bottom, reader.middle, reader.y
        bend = (to_y - y) / 2
        curve = f"{x:.1f} {y + bend:.1f} {to_x:.1f} {to_y - bend:.1f}"
    else:
        x, y = source.right, source.y + source.height / 2
        to_x, to_y = reader.right, reader.y + reader.height / 2
        frames = [box for _, box in panel.blocks if box.bottom > y and box.y < to_y]
        side = max(box.right for box in (source, reader, *between, *frames)) + MARGIN / 2
        far = (side - (x + to_x) / 8) / 0.75  # where a curve must aim to pass there
        curve = f"{far:.1f} {y:.1f} {far:.1f} {to_y:.1f}"
    ElementTree.SubElement(group, "path", d=f"M{x:.1f} {y:.1f}C{curve} {to_x:.1f} {to_y:.1f}")
