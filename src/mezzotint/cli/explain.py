"""`mezzotint explain`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Output
from mezzotint.cli._output import check_free, show


@app.command(
    epilog=examples(
        "explain labels -o insights",
        "explain labels -o insights --weight-bits 3.65 --fitted fitted",
        "explain dit-labels -o insights --beside turbo-labels",
    )
)
def explain(  # noqa: PLR0913  (one parameter per option)
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Folder that `mezzotint sample` made.")
    ],
    *,
    output: Output,
    weight_bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="Show what would be chosen at so many stored bits per weight.",
            show_default="the median of the labels",
        ),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Labels of another model, for findings that compare a U-Net and a transformer.",
        ),
    ] = None,
    predictor: Annotated[
        str, typer.Option(metavar="NAME", help="Learns from the labels: network or residual.")
    ] = "network",
    fitted: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of fitted predictors: what is there is loaded, else fitted and kept.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Epochs of training, at most.", show_default="1000"),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of training.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is at DIR already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain what quantization costs a model, on one page.

    The page is made from LABELS, with tables beside it. Box plots show the scores of all variants
    by block, type of block and type of layer, bars what would be chosen. Every finding that
    Qua²SeDiMo was published with is judged by these labels, at equal nominal and at equal stored
    bits: it holds, does not hold, or cannot be told.

    Needs no model, and no network: DIR/insights.html stands alone.
    """
    import dataclasses

    from mezzotint.cli.tables import findings_table
    from mezzotint.predictors import PredictorOptions
    from mezzotint.report import Explaining, check_insights_folder, explained, save_insights

    check_free(output, force=force)
    check_insights_folder(output)
    learning = PredictorOptions(seed=seed)
    if epochs is not None:
        learning = dataclasses.replace(learning, epochs=epochs)
    asked = Explaining(labels, beside, weight_bits, predictor, fitted, learning)
    insights = explained(asked)
    page = save_insights(insights, output)
    value = {
        "page": str(page),
        "findings": [
            {"claim": each.claim, "judged_at": each.judged_at, "verdict": each.verdict}
            for each in insights.findings
        ],
    }
    show(value, [findings_table(insights.findings, page)], as_json=as_json)
