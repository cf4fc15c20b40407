"""`mezzotint sample`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import (
    Address,
    AsJson,
    Executor,
    Model,
    PromptFile,
    Seed,
    Workers,
    executor_of,
)
from mezzotint.cli._asked_sampling import sampling_of
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import show

if TYPE_CHECKING:
    from mezzotint.labels import Labels


@app.command(
    epilog=examples(
        "sample emoji-dit -n 300 --journal labels",
        "sample emoji-dit -n 300 --journal labels --executor ray",
        "sample emoji-turbo -n 100 --journal quick --metric noise --stratify",
        "sample owner/model -n 40 --journal check --metric fd --prompts my.txt --device cuda",
        "sample owner/model -n 300 --journal mine --metric package.module:function --images 128",
        "sample emoji-turbo -n 300 --journal wide --formats lut2/channel,lut3/channel,lut4/channel "
        "--rounding feedback",
    ),
)
@grouped
def sample(  # noqa: PLR0913  (one parameter per option)
    model: Model,
    *,
    journal: Annotated[
        Path,
        typer.Option(
            "--journal",
            metavar="DIR",
            help="Folder for the labels, and for the quantized layers that they are made of.",
        ),
    ],
    count: Annotated[
        int,
        typer.Option(
            "--count",
            "-n",
            metavar="N",
            help="Number of configurations, with those that are in DIR already.",
        ),
    ] = 300,
    metric: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="paired: distance of image features to the float model's, prompt by prompt; "
            "noise: relative error on recorded calls; fd: Fréchet distance, 1,000 images or more; "
            "or module:function.",
        ),
    ] = "paired",
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images that the metric compares; for noise, prompts whose calls are recorded.",
            show_default="64; 1000 for fd; for noise 8 to 32, the more the fewer steps",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Weight formats that every layer may take, with commas between.",
            show_default="k-means per channel and per tensor, and uniform, at 3 and 4 bits",
        ),
    ] = None,
    rounding: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Rounding of weights: nearest, as published, or feedback."
        ),
    ] = "nearest",
    stratify: Annotated[
        bool,
        typer.Option("--stratify", help="Spread stored bits evenly, from the least to the most."),
    ] = False,
    bos: Annotated[
        bool,
        typer.Option(
            "--bos",
            help="Keep the constant first token of text embeddings out of the quantizers.",
        ),
    ] = False,
    prompts: PromptFile = None,
    seed: Seed = 0,
    calling: Calling,
    loading: Loading,
    executor: Executor = None,
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Draw configurations of MODEL at random, and measure the quality of each.

    A configuration gives every layer one of the formats; its label tells what that costs.

    Finished labels are kept in DIR: after a kill, repeat the command to go on. With a larger -n it
    adds to them. Labels of another model, other prompts, metric, formats or rounding are refused.
    """
    from mezzotint._progress import listening
    from mezzotint.recipes.label_options import SampleOptions
    from mezzotint.recipes.labelling import label_images, sample_labels

    given: dict[str, Any] = {} if formats is None else {"formats": _names(formats)}
    options = SampleOptions(
        count=count,
        metric=metric,
        images=images,
        rounding=rounding,
        stratify=stratify,
        bos=bos,
        seed=seed,
        **given,
    )
    make = executor_of(executor, address, workers)
    pipe = loading.load(model)
    number = None if prompts else label_images(pipe, options)
    sampling = sampling_of(pipe, prompts, seed=seed, count=number, calling=calling)
    with listening(partial(typer.echo, err=True)):
        found = sample_labels(pipe, journal, options, sampling=sampling, executor=make)
    _report(found, journal, as_json)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _report(labels: Labels, folder: Path, as_json: bool) -> None:
    """Print what there is now."""
    from mezzotint.cli.tables import labels_table

    value = {
        "labels": len(labels),
        "ruined": labels.ruined,
        "floor": labels.floor,
        "metric": labels.context["metric"],
        "values": labels.values.tolist(),
        "standard_errors": labels.errors_of_values.tolist(),
        "stored_bits": labels.bits.tolist(),
    }
    show(value, [labels_table(labels)], as_json=as_json)
    if not as_json:
        typer.echo(f"labels are kept in {folder}")
