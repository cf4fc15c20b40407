"""Options that every verb has which loads a model, or runs one."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzotint.cli._arguments import Device
from mezzotint.cli._call import Call, call_kwargs
from mezzotint.errors import UsageError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from mezzotint.models import Sampling

DTYPES = ("float32", "bfloat16", "float16")
"""Names of floating dtypes that options take."""


def floating_dtype(name: str | None) -> torch.dtype | None:
    """The dtype that `--dtype` names; None for none.

    Raises:
        UsageError: it is none of `DTYPES`.
    """
    import torch

    if name is not None and name not in DTYPES:
        raise UsageError(f"--dtype: is {name!r}; give one of: {', '.join(DTYPES)}")
    return None if name is None else getattr(torch, name)


@dataclass(frozen=True)
class Files:
    """A choice among the files of MODEL."""

    revision: Annotated[
        str | None,
        typer.Option(
            "--revision",
            metavar="NAME",
            help="Branch, tag or commit of a Hub repository.",
            show_default="main",
        ),
    ] = None
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant",
            metavar="NAME",
            help="Part of the names of the files of weights, such as fp16.",
            show_default="none",
        ),
    ] = None
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TOKEN",
            help="For Hub repositories that are not public; the variable HF_TOKEN keeps it out of "
            "lists of processes.",
            show_default="that of `hf auth login`",
        ),
    ] = None


@dataclass(frozen=True)
class Loading(Files):
    """Ways to load MODEL."""

    device: Device = "cpu"
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="DTYPE",
            help="Dtype of what is floating, and of what is computed: float32, bfloat16 or "
            "float16.",
            show_default="the checkpoint's own; float32 for float16 on a processor",
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="DIR",
            help="Where MODEL is a single file: folder of a diffusers pipeline with the same "
            "sizes, which has what the file lacks.",
            show_default="diffusers' own choice, from the Hub",
        ),
    ] = None
    lora: Annotated[
        list[str] | None,
        typer.Option(
            "--lora",
            metavar="FILE[:WEIGHT]",
            help="LoRA to merge into the weights first, by a factor of WEIGHT; may be repeated.",
            show_default="none",
        ),
    ] = None

    def load(self, model: str | Path, **more: Any) -> DiffusionPipeline:
        """The pipeline; `more` as `mezzotint.load` takes it.

        Raises:
            UsageError, ModelError, CheckpointError: as `mezzotint.load`.
        """
        from mezzotint.loaded_pipeline import load

        return load(
            model,
            dtype=floating_dtype(self.dtype),
            device=self.device,
            revision=self.revision,
            variant=self.variant,
            token=self.token,
            config=self.config,
            lora=self.lora or (),
            **more,
        )

    def of_quantized(self) -> Loading:
        """The same for a quantized result of the model, which has files of its own."""
        return replace(self, revision=None, variant=None, token=None, config=None, lora=None)


@dataclass(frozen=True)
class Calling:
    """Arguments of the pipeline's call, in the place of its own defaults."""

    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", help="Denoising steps.", show_default="the pipeline's own"
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance",
            metavar="SCALE",
            help="Scale of classifier-free guidance.",
            show_default="the pipeline's own",
        ),
    ] = None
    height: Annotated[
        int | None,
        typer.Option(
            "--height",
            metavar="PIXELS",
            min=1,
            help="Height of the images.",
            show_default="the pipeline's own",
        ),
    ] = None
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            metavar="PIXELS",
            min=1,
            help="Width of the images.",
            show_default="the pipeline's own",
        ),
    ] = None

    call: Call = None

    @property
    def given(self) -> bool:
        """True where anything is asked for."""
        return self != AS_USUAL

    def kwargs(self, images: int, *, repeat: bool) -> dict[str, Any]:
        """Name → value of further arguments of the call; see `call_kwargs`.

        Raises:
            UsageError: one is given twice, or as `call_kwargs`.
        """
        found = call_kwargs(self.call, images, repeat=repeat)
        for name, size in {"height": self.height, "width": self.width}.items():
            if size is not None:
                if name in found:
                    raise UsageError(f"--{name}: is given by --call as well; leave one out")
                found[name] = size
        return found

    def on(self, sampling: Sampling) -> Sampling:
        """The same images with the steps and the guidance that are asked for.

        Raises:
            UsageError: one is out of its domain.
        """
        asked: dict[str, Any] = {"steps": self.steps, "guidance": self.guidance}
        return replace(sampling, **{name: each for name, each in asked.items() if each is not None})


AS_USUAL = Calling()
"""Every argument as the pipeline has it."""
