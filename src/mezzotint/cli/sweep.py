"""`mezzotint sweep`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Model, Output, PromptFile
from mezzotint.cli._asked_sampling import sampling_of
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_free, show
from mezzotint.cli._recipe_command import RecipeCommand, recipe_options
from mezzotint.cli._search_options import Deciding, Searching
from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from mezzotint.plan import Budget


@app.command(
    cls=RecipeCommand,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog=examples(
        "sweep emoji-turbo -o curve --bits 3,3.5,4,5,6",
        "sweep emoji-turbo -o curve --bits 3,4,6 --save 4",
        "sweep ./my-sdxl -o curve --sizes 900MB,1.2GB,1.6GB --save-all",
        "sweep owner/model -o curve --bits 3,4 --act-bits 16 --no-exchanges",
        "sweep emoji-turbo -o curve --bits 3,4,6 --profile emoji.json",
        "sweep ./flux -o curve --bits 4,6 --component transformer --component text_encoder_2",
    ),
)
@grouped
def sweep(  # noqa: PLR0913  (one parameter per option)
    context: typer.Context,
    model: Model,
    *,
    output: Output,
    bits: Annotated[
        str | None,
        typer.Option(
            metavar="BITS",
            help="Budgets: stored bits per weight on average, separated by commas.",
            show_default="3,3.5,4,5,6, unless --sizes is given",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Budgets: stored bytes of the whole denoiser, or of all components "
            "named, separated by commas: 4MB,6MB.",
        ),
    ] = None,
    act_bits: Annotated[
        float,
        typer.Option(
            metavar="BITS",
            help="8 computes layers on 8-bit inputs, 16 leaves inputs as they are.",
        ),
    ] = 8,
    deciding: Deciding,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--save",
            metavar="BUDGET",
            help="Save the checkpoint of this budget, one of --bits or --sizes, as well. May be "
            "repeated.",
        ),
    ] = None,
    save_all: Annotated[
        bool, typer.Option("--save-all", help="Save the checkpoints of all budgets.")
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Profile of the model (`mezzotint profile`), which tells the latency of every "
            "plan. Of the default formats, those in it are taken.",
        ),
    ] = None,
    prompts: PromptFile = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Image i starts from the noise of seed N + i.")
    ] = 0,
    calling: Calling,
    loading: Loading,
    searching: Searching,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a sweep that is at DIR already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Quantize MODEL for several budgets, measuring once; save the curve.

    DIR gets sweep.json (bytes, predicted and measured noise, latency), sweep.svg, the plan of each
    budget, and the measurements; checkpoints on demand, now with --save, or later with
    `mezzotint quantize MODEL --plan DIR/plans/4bit.json`. Each plan is the one that `mezzotint
    quantize` finds for its budget. Budgets that cannot be met are refused before anything is
    measured.

    Any other option, after MODEL, goes to the recipe `auto`: `mezzotint recipes auto` lists what it
    takes.

    Finished measurements are kept in DIR.journal.jsonl until the result is saved: after a kill,
    repeat the command with --resume. DIR appears complete or not at all, and serves `quantize
    --measurements` as well.
    """
    from mezzotint.checkpoint import check_apart
    from mezzotint.models import resolve
    from mezzotint.pipeline import apply
    from mezzotint.recipes import parse_options, recipe_named
    from mezzotint.report import check_drawing, check_sweep_folder, save_sweep
    from mezzotint.sweeping import Sweep, SweepPoint
    from mezzotint.sweeping import sweep as run_sweep

    budgets = _budgets(bits, sizes, act_bits)
    kept = tuple(budgets) if save_all else _kept(keep or (), budgets)
    check_drawing("sweep")
    check_free(output, force=force)
    check_sweep_folder(output)
    source = resolve(model).path
    if source is not None:
        check_apart(output, source)
    found = recipe_named("auto")
    options = deciding.on(found, parse_options(found, recipe_options(context.args)))
    make = searching.factory()
    pipe = loading.load(model)
    count = None if prompts else found.prompts(options, pipe)
    search = partial(
        run_sweep,
        pipe,
        list(budgets.values()),
        options,
        sampling=sampling_of(pipe, prompts, seed=seed, count=count, calling=calling),
        executor=make,
        profile=profile,
        components=deciding.components,
    )

    def pack(point: SweepPoint, folder: Path) -> None:
        apply(pipe, point.plan).save(folder)

    def save(curve: Sweep) -> None:
        save_sweep(curve, output, kept, pack)

    curve = searching.run(search, save, output, force=force, as_json=as_json)
    if curve is None:
        return
    show({"output": str(output), **curve.to_dict()}, [curve.table()], as_json=as_json)
    if not as_json:
        typer.echo(f"saved to {output}; the curve stands in {output / 'sweep.svg'}")


def _budgets(bits: str | None, sizes: str | None, act_bits: float) -> dict[str, Budget]:
    from mezzotint.sweeping import labelled_budgets

    if bits is None and sizes is None:
        bits = "3,3.5,4,5,6"
    texts = _listed(bits)
    try:
        widths = [float(text) for text in texts]
    except ValueError as cause:
        raise UsageError(f"--bits: {bits!r} is no list of numbers, such as 3,3.5,4") from cause
    found = labelled_budgets(widths, _listed(sizes), act_bits)
    if len(found) < len(texts) + len(_listed(sizes)):
        raise UsageError("--bits, --sizes: a budget is given twice; leave one out")
    if not found:
        raise UsageError("--bits, --sizes: none given; give at least one, such as --bits 3,4,6")
    return found


def _kept(asked: Sequence[str], budgets: dict[str, Budget]) -> tuple[str, ...]:
    """Labels of the budgets to save; a number stands for that many bits."""
    found = []
    for each in asked:
        label = next((name for name in (each, f"{each}bit") if name in budgets), None)
        if label is None:
            raise UsageError(f"--save: {each!r} is none of the budgets: {', '.join(budgets)}")
        found.append(label)
    return tuple(found)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
