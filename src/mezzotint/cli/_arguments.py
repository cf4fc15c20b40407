"""Arguments that several verbs share, and what is made of them."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from mezzotint._files import at_home
from mezzotint._printable import printable

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from mezzotint.measuring import ExecutorFactory
    from mezzotint.plan import Sampling

Model: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An embedded model (see `mezzotint models`), a diffusers folder, or a Hub id such as "
        "owner/name.",
    ),
]
Quantized: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that `mezzotint quantize` wrote.")
]
Reference: TypeAlias = Annotated[
    str,
    typer.Option(
        "--reference", metavar="MODEL", help="The floating-point original: name, folder or Hub id."
    ),
]
Output: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for the result.",
        # Shells leave the ~ of --output=~/name as it is.
        callback=at_home,
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", metavar="N", help="Image i starts from the noise of seed N + i.")
]
Device: TypeAlias = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="Device to compute on: cpu or cuda.")
]
Engine: TypeAlias = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="Engine of the denoiser: torch, openvino, or auto: one call of a packed denoiser is "
        "timed by each engine that can compute it here, and the fastest taken; the times are kept.",
    ),
]
PromptFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Prompts, one a line.",
        show_default="those that come with the model, or general ones",
    ),
]
Executor: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="What runs the units of work: in-process, one after another, or ray, on processes of "
        "this machine or of a cluster.",
        show_default="in-process",
    ),
]
Address: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to use, of which this machine is part.",
        show_default="one of this machine alone",
    ),
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Number of processes that have the model.",
        show_default="as many as there are cores, or GPUs with --device cuda",
    ),
]
Pin: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--pin",
        metavar="PATTERN=FORMAT",
        help="Weight format of the layers that PATTERN names (a dotted name, a glob or a re: "
        "expression), such as '*.to_k=int8/channel', or '*.to_k=int8/channel:float' with their "
        "input as well: the recipe decides about the rest. May be repeated; the last that names a "
        "layer holds. Recipes auto and mixdq.",
    ),
]
Exclude: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Layers to keep floating, by a pattern as of --pin; bits per weight do not count "
        "them. May be repeated. Recipes auto and mixdq.",
    ),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON for a program instead of tables.")
]
JsonFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Also write all figures as JSON; - prints them."),
]


def executor_of(
    executor: str | None, address: str | None, workers: int | None
) -> ExecutorFactory | None:
    """The executor of the three options above; None where none is given.

    Raises:
        UsageError: there is none of that name, it takes no such option, or it is not installed.
        ExecutorError: nothing answers at the address.
    """
    from mezzotint.measuring import executor_named

    options = {"address": address, "workers": workers}
    given = {name: value for name, value in options.items() if value is not None}
    if executor is None and not given:
        return None
    return executor_named(executor or "in-process", **given)


def served(
    pipe: DiffusionPipeline, engine: str, sampling: Sampling | None, batch: int = 1
) -> DiffusionPipeline:
    """The pipeline under the engine that `--engine` names; what `auto` chooses is told.

    Args:
        pipe: the pipeline.
        engine: a name, or `auto`.
        sampling: that it is to make; None for the usual.
        batch: images at once.

    Raises:
        UsageError, ModelError: as `mezzotint.with_engine`.
    """
    from mezzotint._progress import listening
    from mezzotint.speed import with_engine

    with listening(lambda line: typer.echo(printable(line), err=True)):
        return with_engine(pipe, engine, sampling, batch=batch)
