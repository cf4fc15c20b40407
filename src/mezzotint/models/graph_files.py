"""Writing a graph of weights to a file: its own JSON, GraphML for other programs, or a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mezzotint._files import replacing
from mezzotint.errors import UsageError
from mezzotint.models.blocks import Block
from mezzotint.models.graph_picture import save_picture
from mezzotint.models.weight_graph import WeightGraph, WeightNode


def save_weight_graph(graph: WeightGraph, blocks: Sequence[Block], path: str | Path) -> None:
    """Write to a file whose suffix says how: `.json`, `.graphml` or `.svg`; complete or not at all.

    JSON holds the graph alone: blocks are found again in it.

    Raises:
        UsageError: another suffix, or `path` is a folder.
    """
    path = Path(path)
    writer_for(path)(graph, blocks, path)


def writer_for(path: Path) -> Callable[[WeightGraph, Sequence[Block], Path], None]:
    """The function that writes files of that suffix.

    Raises:
        UsageError: there is none.
    """
    if path.suffix not in _WRITERS:
        raise UsageError(f"{path}: its suffix says what to write; end it in {', '.join(_WRITERS)}")
    return _WRITERS[path.suffix]


def _save_json(graph: WeightGraph, _: Sequence[Block], path: Path) -> None:
    graph.save(path)


def _save_graphml(graph: WeightGraph, blocks: Sequence[Block], path: Path) -> None:
    """GraphML, with all that is known of a node as its attributes."""
    import networkx  # type: ignore[import-untyped]  # noqa: PLC0415  (takes a third of a second)

    found = networkx.DiGraph()
    of_weight = {index: block for block in blocks for index in block.weights}
    roots = {block.root: block for block in blocks}
    for node in graph.nodes:
        stage, block, transformer = node.place
        values = asdict(node) | {"stage": stage, "block": block, "transformer": transformer}
        del values["index"], values["place"]
        if isinstance(node, WeightNode):
            values |= {"type": "weight", "role": node.role.value}
            values |= {"block_kind": of_weight[node.index].kind.value}
            values |= {"block_name": of_weight[node.index].name}
        else:
            values["type"] = "combine"
        if node.index in roots:
            values["root_of"] = roots[node.index].name
            values["hops"] = roots[node.index].hops
        found.add_node(node.index, **values)
    found.add_edges_from(graph.edges)
    with replacing(path) as temporary:
        networkx.write_graphml(found, temporary)


_WRITERS: Mapping[str, Callable[[WeightGraph, Sequence[Block], Path], None]] = {
    ".json": _save_json,
    ".graphml": _save_graphml,
    ".svg": save_picture,
}
