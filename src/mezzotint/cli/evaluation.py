"""`mezzotint evaluate` and `mezzotint bench`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

from typing import Annotated

import typer

from mezzotint.cli._app import app, examples
from mezzotint.cli._arguments import (
    Address,
    Engine,
    Executor,
    JsonFile,
    PromptFile,
    Quantized,
    Reference,
    Seed,
    Workers,
    executor_of,
    served,
)
from mezzotint.cli._asked_sampling import sampling_of
from mezzotint.cli._grouped import grouped
from mezzotint.cli._option_groups import Calling, Loading
from mezzotint.cli._output import check_file, deliver


@app.command(
    epilog=examples(
        "evaluate owl-w4a8 --reference emoji-turbo",
        "evaluate owl-w4a8 --reference emoji-turbo -n 2048 --json owl-w4a8.json",
        "evaluate owl-w4a8 --reference emoji-turbo -n 2048 --executor ray",
        "evaluate dit-w4 --reference owner/dit -n 64 --call class_labels=[207,360]",
    )
)
@grouped
def evaluate(  # noqa: PLR0913  (one parameter per option)
    model: Quantized,
    *,
    reference: Reference,
    count: Annotated[
        int,
        typer.Option("-n", "--images", metavar="N", min=1, help="Number of images to compare."),
    ] = 256,
    prompts: PromptFile = None,
    seed: Seed = 0,
    calling: Calling,
    loading: Loading,
    executor: Executor = None,
    address: Address = None,
    workers: Workers = None,
    json_file: JsonFile = None,
) -> None:
    """Compare a quantized pipeline with its original.

    Both run on the same prompts and seeds. Reported are paired figures (PSNR, SSIM, and the noise
    prediction's SQNR per timestep, with confidence intervals), figures of the distribution, and
    stored bytes. Prompts are repeated with other seeds where there are fewer than N. Distances
    between distributions mean little below 2,000 images.
    """
    from mezzotint.evaluation import evaluate as compare

    check_file(json_file)
    make = executor_of(executor, address, workers)
    original = loading.load(reference)
    sampling = sampling_of(original, prompts, seed=seed, count=count, calling=calling)
    evaluation = compare(original, loading.of_quantized().load(model), sampling, executor=make)
    deliver(evaluation.to_dict(), [evaluation.table()], json_file)


@app.command(epilog=examples("bench owl-w4a8 --reference emoji-turbo"))
@grouped
def bench(
    model: Quantized,
    *,
    reference: Reference,
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Timed calls of each; the median counts.")
    ] = 7,
    calling: Calling,
    loading: Loading,
    engine: Engine = "torch",
    json_file: JsonFile = None,
) -> None:
    """Measure latency and bytes against the original.

    Calls of the two denoisers alternate, so that a busy machine disturbs both alike. The engine is
    the quantized one's; the original runs on torch.
    """
    from mezzotint.engines import check_engine
    from mezzotint.evaluation import bench as measure

    check_file(json_file)
    check_engine(engine)
    original = loading.load(reference)
    quantized = loading.of_quantized().load(model)
    sampling = None
    if calling.given:
        sampling = sampling_of(original, None, seed=0, count=1, calling=calling)
    quantized = served(quantized, engine, sampling)
    result = measure(original, quantized, sampling, repeats=repeats)
    deliver(result.to_dict(), [result.table()], json_file)
