"""`mezzotint generate`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from mezzotint._files import check_no_file, replacing
from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import Device, Engine, Model, Seed, Steps
from mezzotint.cli._output import check_file

_LONGEST_SLUG = 50


@app.command(
    epilog=examples(
        'generate emoji-turbo "owl, noto style" -o pictures',
        'generate owl-w4a8 "owl, noto style" "red apple, flat style" -o pictures --seed 7',
    )
)
def generate(
    model: Model,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="One picture is made of each.", show_default=False),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the PNG files.")
    ],
    steps: Steps = None,
    seed: Seed = 0,
    device: Device = "cpu",
    engine: Engine = "torch",
) -> None:
    """Make a picture of each PROMPT.

    MODEL may be quantized or not. The same seed gives the same picture, however many are made at
    once. Files are named after the prompt's number and words, such as 000-owl-noto-style.png;
    existing ones are replaced.
    """
    from PIL import Image

    from mezzotint.models import Sampling
    from mezzotint.models import generate as sample
    from mezzotint.pipeline import load

    sampling = Sampling(prompts=tuple(prompts or ()), seed=seed, steps=steps)
    check_no_file(output)
    check_file(output / "000.png")
    images = sample(load(model, device=device, engine=engine), sampling)
    for index, (prompt, pixels) in enumerate(zip(sampling.prompts, images, strict=True)):
        path = output / f"{index:03}-{slug(prompt)}.png"
        with replacing(path) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        typer.echo(path)


def slug(prompt: str) -> str:
    """The prompt's words, fit for a file name."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))
    return words[:_LONGEST_SLUG].rstrip("-") or "prompt"
