"""`mezzotint profile`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Model
from mezzotint.cli._asked_sampling import sampling_of
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_file, show


@app.command(
    epilog=examples(
        "profile emoji-turbo",
        "profile emoji-turbo --batch 4 -o profile.json",
        "profile owner/model --device cuda --formats int4/channel,int8/channel",
    )
)
@grouped
def profile(  # noqa: PLR0913  (one parameter per option)
    model: Model,
    *,
    calling: Calling,
    loading: Loading,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images per denoiser call.")] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Also write the profile, as JSON.",
            show_default="nothing is written",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Weight formats to measure, with commas.",
            show_default="those of recipe auto",
        ),
    ] = None,
    activations: Annotated[
        str, typer.Option(metavar="NAMES", help="Activation formats to measure, with commas.")
    ] = "float,int8/token,uint8/tensor",
    repeats: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=50,
            help="Timed calls at least, of what is not measured yet; the median counts.",
        ),
    ] = 7,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Measure again what was measured on this machine before."),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File that keeps finished measurements.",
            show_default="a file per machine and model in the user's cache folder",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how long each layer takes in each format on this machine.

    One denoiser call of the pipeline is recorded; every layer is then timed on its real input,
    floating and really packed, in turns. Layers that do the same are timed once. The rest of a
    call (norms, attention, activations) is the whole call less its layers.

    Finished measurements are kept: after a kill, repeat the command. `mezzotint quantize
    --latency` uses them.
    """
    from mezzotint.checkpoint import check_apart
    from mezzotint.models import resolve
    from mezzotint.profiling import (
        Timer,
        Work,
        candidates,
        profile_pipeline,
        slowest_table,
        totals_table,
    )
    from mezzotint.recipes import Auto

    check_file(output)
    check_file(cache)
    weights = Auto.formats if formats is None else _names(formats)
    source = resolve(model).path
    if output is not None and source is not None:
        check_apart(output, source)
    pipe, sampling = loading.load(model), None
    if calling.given:
        sampling = sampling_of(pipe, None, seed=0, count=batch, calling=calling)
    found = profile_pipeline(
        pipe,
        Work(batch, sampling),
        choices=candidates(weights, _names(activations)),
        cache=cache,
        fresh=fresh,
        timer=Timer(repeats=repeats),
    )
    if output is not None:
        found.save(output)
    show(found.to_dict(), [slowest_table(found), totals_table(found)], as_json=as_json)


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]
