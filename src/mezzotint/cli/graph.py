"""`mezzotint graph`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import Model
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Loading
from mezzotint.cli._output import check_file, check_free


@app.command(
    epilog=examples(
        "graph emoji-dit -o emoji-dit.svg",
        "graph owner/model -o model.graphml",
        "graph emoji-turbo -o graph.json --shortcuts none",
    )
)
@grouped
def graph(
    model: Model,
    *,
    loading: Loading,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to: FILE.svg, FILE.graphml or FILE.json."
        ),
    ],
    shortcuts: Annotated[
        Literal["none", "shortcuts", "concatenations"],
        typer.Option(help="Layers whose input is a concatenation that are two weights each."),
    ] = "shortcuts",
    modulation: Annotated[
        bool,
        typer.Option(
            "--modulation/--no-modulation",
            help="Whether layers that modulate the input of self-attention belong to its block.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
) -> None:
    """Write the graph of a denoiser's weights to a file.

    It says which weight reads which, and where their results meet: as a picture (SVG) block by
    block, for other programs (GraphML, with the block of every weight), or as JSON. The graph
    follows from the architecture: of a quantized model it is that of its original.
    """
    from mezzotint.checkpoint import check_apart
    from mezzotint.models import (
        blocks_of,
        find_denoiser,
        floating_skeleton,
        layers_in,
        resolve,
        save_weight_graph,
        trace_graph,
        weight_graph,
        writer_for,
    )
    from mezzotint.recipes.found_structures import split_inputs

    writer_for(output)
    check_file(output)
    check_free(output, force=force)
    source = resolve(model).path
    if source is not None:
        check_apart(output, source)
    denoiser = floating_skeleton(find_denoiser(loading.load(model))[1])
    traced = trace_graph(denoiser)
    splits = split_inputs(traced, layers_in(denoiser, traced), shortcuts)
    found = weight_graph(denoiser, traced, splits)
    blocks = blocks_of(found, modulation=modulation)
    save_weight_graph(found, blocks, output)
    typer.echo(
        f"{output}: {len(found.weights)} weights in {len(blocks)} blocks, {len(found.combines)} "
        f"operations that join them, {len(found.edges)} edges"
    )
