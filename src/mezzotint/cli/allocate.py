"""`mezzotint allocate`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import AsJson
from mezzotint.cli._output import check_file, show
from mezzotint.errors import UsageError


@app.command(
    epilog=examples(
        "allocate --scores sqnr.yaml --sizes sizes.yaml --bits 2,4,8 --average 4 -o bits.yaml",
        'allocate --scores ssim.yaml --sizes sizes.yaml --bits 2,4,8 --average 3.4 --only "*ff*" '
        "-o ff.json",
        "allocate --scores act.yaml --sizes act-sizes.yaml --bits 2,4,8 --candidates 4,8 "
        "--average 7.7 --tolerance 0.02 --protect 0.01 -o act.yaml",
    )
)
def allocate(  # noqa: PLR0913  (one parameter per option)
    *,
    scores: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="YAML or JSON: layer to its scores, larger is better, in the order of --bits or "
            "as bits: score.",
        ),
    ],
    sizes: Annotated[
        Path,
        typer.Option(metavar="FILE", help="YAML or JSON: layer to its number of weights."),
    ],
    bits: Annotated[
        str, typer.Option(metavar="BITS", help="Widths that the scores are for, e.g. 2,4,8.")
    ],
    average: Annotated[
        float, typer.Option(metavar="BITS", help="Average bits, weighted by the layers' sizes.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File for each layer's bits: .yaml or .json.",
        ),
    ],
    candidates: Annotated[
        str | None,
        typer.Option(
            metavar="BITS", help="Widths among --bits to choose from.", show_default="all of them"
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            help="Keep the average within ± this instead of at or below --average.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only layers so named: a module's name, a glob, or re: and a regular expression. "
            "Can be repeated.",
            show_default="all layers",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Not layers so named. Can be repeated."),
    ] = None,
    protect: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Leave out this share of the layers, those that score lowest at the most bits.",
        ),
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Choose every layer's bits under an average, from scores of your own.

    Needs no model: scores and sizes are files. The total score is as large as it can be, with its
    proof. Protected layers and those that the patterns leave out take no part in the average and
    are not in the result.
    """
    from mezzotint.allocation.files import check_suffix, read_program, write_bits
    from mezzotint.cli.tables import allocation_table
    from mezzotint.recipes.mixdq.protect import allocate_unprotected

    check_suffix(output)
    check_file(output)
    if output.resolve() in (scores.resolve(), sizes.resolve()):
        raise UsageError(f"{output}: is the file of the scores or sizes; name another")
    widths = _widths(bits, "bits")
    choices = None if candidates is None else _widths(candidates, "candidates")
    group = read_program(
        scores, sizes, widths, candidates=choices, only=only or (), exclude=exclude or ()
    )
    found, left_out = allocate_unprotected(group, average, tolerance, share=protect)
    write_bits(output, found.bits)
    shown, counts = sorted(choices or widths), Counter(found.bits.values())
    value = {
        "output": str(output),
        "layers": {str(width): counts[width] for width in shown},
        "average_bits": found.average,
        "objective": found.objective,
        "gap": found.gap,
        "protected": left_out,
    }
    show(value, [allocation_table(found, shown, left_out)], as_json=as_json)


def _widths(text: str, option: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError as cause:
        raise UsageError(
            f"{option}: {text!r} are not widths; give whole numbers with commas, e.g. 2,4,8"
        ) from cause
