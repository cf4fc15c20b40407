"""`mezzotint quantize`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Model, Output, PromptFile
from mezzotint.cli._asked_sampling import asked_sampling, sampling_of
from mezzotint.cli._goal import SPEED, limits_of
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_free, reserved
from mezzotint.cli._recipe_command import RecipeCommand, recipe_options
from mezzotint.cli._refit import refitting
from mezzotint.cli._results import TIMED_CALLS, TIMING, foretell_speed, report, save, timed
from mezzotint.cli._search_options import Deciding, Searching
from mezzotint.errors import UsageError


@app.command(
    cls=RecipeCommand,
    # An option that typer does not know may be one of the recipe.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog=examples(
        "quantize emoji-turbo -o owl-w4a8",
        "quantize emoji-turbo -o owl-mixdq --recipe mixdq --weight-bits 4 --act-bits 8",
        "quantize emoji-turbo -o owl-joint --recipe mixdq --split joint --no-bos",
        "quantize emoji-turbo -o small --size 6MB --goal memory",
        "quantize emoji-turbo -o good --goal quality=35dB",
        "quantize emoji-turbo -o w4 --pin '*.attn2.to_k=int8/channel' --exclude conv_out",
        "quantize owner/model -o w4 --calls 4 --dry-run",
        "quantize ./flux -o small --component transformer --component text_encoder_2 "
        "--pipeline-size 12GB",
        "quantize emoji-turbo -o fast --latency 0.6x --weight-bits 6",
        "quantize owner/model -o w3 --weight-bits 3 --prompts my.txt --device cuda",
        "quantize owner/model -o w3 --weight-bits 3 --prompts my.txt --device cuda --resume",
        "quantize emoji-turbo -o owl-w3 --weight-bits 3 --measurements owl-w4a8",
        "quantize emoji-turbo -o owl-joint --recipe mixdq --split joint --executor ray",
        "quantize emoji-turbo -o mine --plan edited.json",
        "quantize ./my-fine-tune -o mine-w4a8 --plan owl-w4a8 --refit",
        "quantize ./flux -o flux-w4 --stream",
        "quantize owner/model -o w4 --variant fp16 --steps 8 --guidance 5 --height 768 --width 512",
        "quantize mine.safetensors -o w4 --config ./sd15 --lora style.safetensors:0.8",
        "quantize ./inpainting -o w4 --prompts my.txt --call image=photos --call mask_image=m.png",
    ),
)
@grouped
def quantize(  # noqa: PLR0913  (one parameter per option)
    context: typer.Context,
    model: Model,
    *,
    output: Output,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Way to find the plan: see `mezzotint recipes`.",
            show_default="auto",
        ),
    ] = None,
    weight_bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="At most this many stored bits per weight on average, scales included.",
            show_default="4, unless --size, --pipeline-size, --latency or a --goal of quality is "
            "given",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="At most this many stored bytes for the whole denoiser, or for all components "
            "named: 6MB, 1.5GiB, 7000000.",
        ),
    ] = None,
    pipeline_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="At most this many stored bytes for all models of the pipeline, quantized or not.",
        ),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="At most this long for one denoiser call on this machine, predicted from its "
            "layers' times: 0.6x of the floating denoiser's, or 35ms. Recipe auto only.",
        ),
    ] = None,
    act_bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="8 computes layers on 8-bit inputs, 16 leaves inputs as they are; recipe mixdq "
            "takes averages between.",
            show_default="8",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            metavar="GOAL",
            help="quality=35dB: the fewest bytes whose measured signal to noise reaches that; "
            "memory: weights only, inputs as they are; speed: 8-bit inputs, and the engines that "
            "are installed are timed. Recipe auto for quality.",
        ),
    ] = None,
    deciding: Deciding,
    prompts: PromptFile = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Image i starts from the noise of seed N + i.",
            show_default="0, or as --plan says",
        ),
    ] = None,
    calling: Calling,
    loading: Loading,
    searching: Searching,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="For a denoiser larger than memory: its weights stay in their files, and each "
            "layer's is read when it is used. Slow.",
        ),
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pack after this plan (JSON, or a quantized folder) instead of a recipe, "
            "calibrated as it says unless --prompts, --seed or --call is given.",
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit",
            help="MODEL is a fine-tune of the one that --plan, a folder with measurements, is of: "
            "find a plan from these and a tenth as many probes. Budget, components, pins and "
            "exclusions are those of --plan, unless others are given. Recipe auto.",
        ),
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
    """Quantize MODEL under a budget; save it to DIR.

    Without options: 4 bits per weight on average over the denoiser's layers, 8-bit activations.
    --weight-bits, --size and --latency all hold where given together. The recipe runs MODEL on a
    few prompts, measures what each format costs each layer, and chooses the best formats that the
    budget allows. The result loads with mezzotint.load and with diffusers.

    Any other option, after MODEL, goes to the recipe: `mezzotint recipes NAME` lists what it
    takes.

    Finished measurements are kept in DIR.journal.jsonl until the result is saved: after a kill,
    repeat the command with --resume. DIR appears complete or not at all, and keeps the
    measurements, for --measurements and another budget.
    """
    from mezzotint._progress import followed_by, listening
    from mezzotint.checkpoint import check_apart, check_replaceable, read_plan
    from mezzotint.models import resolve
    from mezzotint.pipeline import apply
    from mezzotint.pipeline import quantize as run_recipe
    from mezzotint.plan import Budget
    from mezzotint.recipes import parse_options, recipe_named

    if model.startswith("-"):
        raise UsageError(f"{model}: stands where MODEL should; options of the recipe come after it")
    check_free(output, force=force)
    check_replaceable(output)
    source = resolve(model).path
    if source is not None:
        check_apart(output, source)
    extra = recipe_options(context.args)
    if refit and plan is None:
        raise UsageError("--refit: goes with --plan, the result of the base model; add it")
    if plan is not None and not refit:
        limits = (weight_bits, size, pipeline_size, latency, act_bits)
        _refuse_with_plan(recipe, goal, *limits, *extra)
        _refuse_with_plan(deciding.given, searching.given)
        chosen = read_plan(plan)
        with reserved(output, force=force), listening(partial(typer.echo, err=True)):
            pipe = loading.load(model, stream=stream)
            sampling = asked_sampling(pipe, chosen, prompts, seed, calling)
            result = apply(pipe, chosen, sampling=sampling)
            save(result, output, force=force)
    else:
        found = recipe_named(recipe or "auto")
        options = deciding.on(found, parse_options(found, extra))
        components = deciding.components
        asked = {
            "weight_bits": weight_bits,
            "size": size,
            "pipeline_size": pipeline_size,
            "act_bits": act_bits,
            "latency": latency,
        }
        given: dict[str, Any] = {name: limit for name, limit in asked.items() if limit is not None}
        if refit and plan is not None:
            refitted = refitting(options, plan, given, components)
            options, given, components = refitted.options, refitted.budget, refitted.components
        budget = Budget(**limits_of(goal, given))
        make = searching.factory()
        pipe = loading.load(model, stream=stream)
        count = None if prompts else found.prompts(options, pipe)
        sampling = sampling_of(pipe, prompts, seed=seed or 0, count=count, calling=calling)
        foretell_speed(pipe, budget, sampling, told=not (stream or components or searching.resume))
        search = partial(
            run_recipe,
            pipe,
            options,
            budget,
            sampling=sampling,
            executor=make,
            components=components,
        )
        with nullcontext() if stream else followed_by(TIMING, TIMED_CALLS):
            outcome = searching.run(
                search, partial(save, output=output, force=force), output, force=force
            )
        if outcome is None:
            return
        result = outcome
    # Streamed weights are read from disk at every call, which no result can be compared with.
    times = None if stream else timed(pipe, result, every_engine=goal == SPEED)
    report(result, output, as_json, times)


def _refuse_with_plan(*options: object) -> None:
    if any(option is not None and option is not False for option in options):
        raise UsageError(
            "--plan: says everything about the result; leave out --recipe, --weight-bits, --size, "
            "--pipeline-size, --latency, --act-bits, --component, --goal, --pin, --exclude, "
            "--resume, --measurements, --dry-run and --executor"
        )
