"""The table of docs/graph.md leads from the published node counts to those of our graphs."""

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import ROOT
from tests.models import architectures as published
from tests.models.architectures import Architecture, weight_graph_of

MODELS = {
    "DiT-XL/2": (published.DIT, 369),
    "SD 1.5": (published.SD15, 432),
    "PixArt-α 512": (published.PIXART_ALPHA_512, 568),
    "Hunyuan-DiT": (published.HUNYUAN_DIT, 844),
    "SDXL": (published.SDXL, 1316),
}


def rows() -> Iterator[tuple[str, int, int, str]]:
    """Model, weights, operations and remark of each row; an empty cell is 0."""
    page = (ROOT / "docs" / "graph.md").read_text("utf-8")
    model = ""
    for name, *counts, remark in re.findall(
        r"^\| ([^|]*)\| ([+-]?\d*) ?\| ([+-]?\d*) ?\| ([^|]+) \|$", page, re.MULTILINE
    ):
        model = name.strip() or model
        weights, operations = (int(count or 0) for count in counts)
        yield model, weights, operations, remark


def of(model: str) -> list[tuple[int, int, str]]:
    return [row for name, *row in rows() if name == model]


def test_the_table_has_all_models():
    assert {name for name, *_ in rows()} == set(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_published_counts_and_differences_add_up_to_ours(model: str):
    *counted, ours = of(model)
    sums = [sum(row[column] for row in counted) for column in (0, 1)]
    assert sums == [*ours[:2]]
    assert len(counted) > 1


@pytest.mark.parametrize(("model", "nodes"), [(m, count) for m, (_, count) in MODELS.items()])
def test_the_first_row_is_published(model: str, nodes: int):
    weights, operations, remark = of(model)[0]
    assert weights + operations == nodes
    assert remark == f"published: {nodes} nodes"


@pytest.mark.parametrize(("model", "architecture"), [(m, a) for m, (a, _) in MODELS.items()])
def test_the_last_row_is_ours(model: str, architecture: Architecture):
    graph = weight_graph_of(architecture)
    assert of(model)[-1] == [
        *(len(graph.weights), len(graph.combines)),
        f"ours: {len(graph.nodes)} nodes",
    ]
