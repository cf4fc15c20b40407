"""`mezzotint tune`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Output, PromptFile
from mezzotint.cli._asked_sampling import asked_sampling
from mezzotint.cli._call import Call
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_free, reserved
from mezzotint.cli._results import kept_work, report, save
from mezzotint.errors import UsageError


@app.command(
    epilog=examples(
        "tune owl-w4a8 -o owl-tuned",
        "tune edited.json -o mine --reference emoji-turbo --minutes 20",
        "tune owl-w4a8 -o owl-tuned --minutes 30 --resume",
    ),
)
@grouped
def tune(  # noqa: PLR0913  (one parameter per option)
    plan: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="A quantized folder, or a plan's JSON file."),
    ],
    *,
    output: Output,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The floating-point original: name, folder or Hub id.",
            show_default="the model that the plan names",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Minutes of training, of all interrupted runs together.",
            show_default="10, unless --steps is given",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Updates of training, in place of minutes."),
    ] = None,
    prompts: PromptFile = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Image i of the calibration starts from the noise of seed N + i.",
            show_default="0, or as the plan says",
        ),
    ] = None,
    call: Call = None,
    loading: Loading,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training of an interrupted run.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace a pipeline that is at DIR already, and give up an interrupted training.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train scales, biases and norms of PLAN; save it to DIR.

    The original teaches: what it computes on the way from noise to image, its quantized form learns
    to compute as well. Weights keep their codes, and no byte is added, whatever recipe made the
    plan. It is calibrated as it says unless --prompts, --seed or --call is given.

    The state of the training is kept in DIR.training, every minute, until the result is saved:
    after a kill, repeat the command with --resume.
    """
    from mezzotint._progress import listening
    from mezzotint.checkpoint import check_apart, check_replaceable, read_plan
    from mezzotint.models import resolve
    from mezzotint.tuning import tune as train

    if minutes is not None and steps is not None:
        raise UsageError("--steps: stands in place of --minutes; leave one of them out")
    check_free(output, force=force)
    check_replaceable(output)
    chosen = read_plan(plan)
    name = reference or chosen.model
    if name is None:
        raise UsageError(f"{plan}: does not name its model; give --reference")
    for source in (resolve(name).path, plan if plan.is_dir() else None):
        if source is not None:
            check_apart(output, source)
    pipe = loading.load(name)
    sampling = asked_sampling(pipe, chosen, prompts, seed, Calling(call=call))
    with (
        reserved(output, force=force),
        kept_work(output, resume=resume, force=force) as journal,
        listening(partial(typer.echo, err=True)),
    ):
        result = train(
            pipe, chosen, minutes=minutes, steps=steps, sampling=sampling, journal=journal
        )
        save(result, output, force=force)
    report(result, output, as_json)
