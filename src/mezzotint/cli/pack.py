"""`mezzotint pack`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint._printable import printable
from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson, Model, Output
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import DTYPES, Files, floating_dtype
from mezzotint.cli._output import reserved, show


@app.command(
    epilog=examples(
        "pack ./flux -o flux-w4 --weight-bits 4",
        "pack ./flux -o flux-w8a8 --weight-bits 8 --act-bits 8 --exclude 'proj_out'",
        "pack ./flux -o flux-mine --plan edited.json --dtype bfloat16",
        "pack owner/model -o w4 --weight-bits 4 --variant fp16 --revision main",
        "pack ./flux/transformer -o flux-transformer-w4 --weight-bits 4 --shard-size 1GB",
    ),
)
@grouped
def pack(  # noqa: PLR0913  (one parameter per option)
    model: Model,
    *,
    output: Output,
    weight_bits: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="Bits of every layer's weights, 1 to 8, one scale per output channel.",
            show_default="8",
        ),
    ] = None,
    act_bits: Annotated[
        int | None,
        typer.Option(
            metavar="BITS",
            help="8 computes layers on 8-bit inputs, 16 leaves inputs as they are.",
            show_default="16",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to keep floating: a dotted name, a glob or a re: expression. May be "
            "repeated.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pack after this plan (JSON, or a quantized folder, which also gives calibrated "
            "input ranges) instead.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help=f"Store what stays floating as {', '.join(DTYPES)}.",
            show_default="as MODEL has it",
        ),
    ] = None,
    shard_size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="At most this many bytes per file, and in memory before they are written.",
        ),
    ] = "256MiB",
    files: Files,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what was packed to DIR before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pack MODEL layer by layer, from disk to disk, in little memory.

    For models larger than memory: one layer at a time is read, packed and written; the pipeline's
    other components are copied. MODEL may also be the folder of a single diffusers model. Nothing
    is run or measured, so the widths are given, or come from a plan. The packed tensors are those
    of `mezzotint quantize --plan`, bit for bit.

    DIR appears complete or not at all. After a kill, repeat the command: it goes on behind the last
    finished file.
    """
    from mezzotint.checkpoint.streaming import Storage, quantize_checkpoint
    from mezzotint.models import SourceOptions
    from mezzotint.plan import parse_size

    storage = Storage(dtype=floating_dtype(dtype), shard_bytes=parse_size(shard_size))
    with reserved(output, force=force):
        written = quantize_checkpoint(
            model,
            output,
            plan=plan,
            weight_bits=weight_bits,
            act_bits=act_bits,
            exclude=tuple(exclude or ()),
            storage=storage,
            options=SourceOptions(files.revision, files.variant, files.token),
        )
    value: dict[str, Any] = {
        "output": str(output),
        "denoiser_bytes": written.denoiser_bytes,
        "left_out": list(written.left_out),
        "plan": written.plan.to_dict(),
    }
    show(value, [written.plan.summary()], as_json=as_json)
    if not as_json:
        for name in written.left_out:
            note = f"note: {name} was left out; the model has no place for it"
            typer.echo(printable(note))
        typer.echo(f"saved to {output}; the denoiser takes {written.denoiser_bytes:,} bytes")
