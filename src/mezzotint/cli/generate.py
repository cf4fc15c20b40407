"""`mezzotint generate`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mezzotint._files import check_no_file, replacing
from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import Engine, Model, Seed, served
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_file

_LONGEST_SLUG = 50

_FRAME_MILLISECONDS = 125
"""Time that a frame of a video is shown: eight a second."""


@app.command(
    epilog=examples(
        'generate emoji-turbo "owl, noto style" -o pictures',
        'generate owl-w4a8 "owl, noto style" "red apple, flat style" -o pictures --seed 7',
        'generate ./inpainting "a red door" -o out --call image=house.png --call mask_image=m.png',
        "generate ./dit -n 4 -o pictures --call class_labels=207",
    )
)
@grouped
def generate(  # noqa: PLR0913  (one parameter per option)
    model: Model,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="One picture is made of each.", show_default=False),
    ] = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the PNG files.")
    ],
    count: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--images",
            metavar="N",
            min=1,
            help="Number of pictures; prompts repeat with further seeds.",
            show_default="one of each prompt, or one",
        ),
    ] = None,
    seed: Seed = 0,
    calling: Calling,
    loading: Loading,
    engine: Engine = "torch",
) -> None:
    """Make a picture, or a video, of each PROMPT.

    MODEL may be quantized or not, and need no PROMPT. The same seed gives the same picture, however
    many are made at once. Files are named after the prompt's number and words, such as
    000-owl-noto-style.png; existing ones are replaced. A video's frames are kept in one animated
    PNG file.
    """
    from PIL import Image

    from mezzotint.engines import check_engine
    from mezzotint.models import Sampling, takes_prompts
    from mezzotint.models import generate as sample
    from mezzotint.recipes.default_prompts import default_sampling

    texts = tuple(prompts or ())
    number = len(texts) or count or 1
    given = calling.kwargs(number, repeat=False)
    asked = Sampling(texts, seed, count=None if texts else number, call_kwargs=given)
    check_no_file(output)
    check_file(output / "000.png")
    check_engine(engine)
    pipe = loading.load(model)
    if not texts and not takes_prompts(pipe):
        asked = replace(default_sampling(pipe, number, call_kwargs=given), seed=seed)
    asked = calling.on(asked)
    sampling = asked if count is None else asked.repeated(count)
    pipe = served(pipe, engine, sampling, min(len(sampling), sampling.batch))
    images = sample(pipe, sampling)
    names = sampling.prompts or ("image",) * len(sampling)
    for index, (name, pixels) in enumerate(zip(names, images, strict=True)):
        path = output / f"{index:03}-{slug(name)}.png"
        with replacing(path) as temporary:
            first, *others = map(Image.fromarray, pixels if pixels.ndim == 4 else pixels[None])
            first.save(
                temporary,
                format="PNG",
                save_all=bool(others),
                append_images=others,
                duration=_FRAME_MILLISECONDS,
            )
        typer.echo(path)


def slug(prompt: str) -> str:
    """The prompt's words, fit for a file name."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))
    return words[:_LONGEST_SLUG].rstrip("-") or "prompt"
