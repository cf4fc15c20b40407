"""Throughput of executors: workers of a Ray cluster on this machine against one process.

For each embedded model, three kinds of work: the noise of its layers at six choices each, which
replays what runs before a layer; whole plans by their images; and images of prompts. Every process
has the same number of threads, and both ways take turns. Workers have the model and have been given
calls and calibration before the clock starts, as in long work. Results must be equal bit for bit.
Prints a Markdown table and writes it with all figures to benchmarks/results/.

    OMP_NUM_THREADS=1 python benchmarks/executors.py [--models emoji-turbo emoji-dit]
                                                     [--workers 1 2] [--repeats 5] [--layers 12]

Workers beyond the cores of this machine, or those that others use, gain nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint._journal import Journal
from mezzotint.measuring import (
    ExecutorFactory,
    ImageError,
    InProcess,
    LayerChange,
    Noise,
    Original,
    PlanChange,
    RayCluster,
    Task,
    generate_with,
    measure,
)
from mezzotint.models import Sampling, find_denoiser, inventory, record_calls
from mezzotint.plan import Choice, Plan
from mezzotint.profiling import interleaved_medians
from mezzotint.recipes.default_prompts import default_sampling

CHOICES = (
    *(Choice(f"int{bits}/channel") for bits in (2, 4, 8)),
    *(Choice(f"int{bits}/channel", "int8/token") for bits in (2, 4, 8)),
)
HERE = "in process"
#: Whole plans, and batches of images, that are timed.
PLANS, BATCHES = 8, 8
#: Least throughput in terms of one process, by number of workers.
TARGETS = {1: 0.9, 2: 1.7}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji-turbo", "emoji-dit"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    rows = [
        row
        for model, workers in itertools.product(arguments.models, arguments.workers)
        for row in rows_of(model, RayCluster(workers=workers, threads=threads), arguments)
    ]
    result = {
        "rows": rows,
        "context": {
            "torch": torch.__version__,
            "threads": threads,
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
            "repeats": arguments.repeats,
        },
    }
    write_json(RESULTS / "executors.json", result)
    (RESULTS / "executors.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def rows_of(model: str, cluster: RayCluster, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    pipe = mz.load(model)
    denoiser = find_denoiser(pipe)[1]
    sampling = default_sampling(pipe)
    original = Original(denoiser, record_calls(pipe, sampling), pipe=pipe, sampling=sampling)
    assert len(original.images.images) == len(sampling.prompts)  # made once, before the clock
    names = [layer.name for layer in inventory(denoiser) if layer.supported]
    chosen = names[:: max(1, len(names) // arguments.layers)][: arguments.layers]
    layers = [Task(LayerChange(name, choice), Noise()) for name in chosen for choice in CHOICES]
    # Few layers: a copy costs little beside its images, as where configurations are switched.
    plans = [Task(PlanChange(Plan({name: CHOICES[0]})), ImageError()) for name in names[:PLANS]]
    prompts = tuple(itertools.islice(itertools.cycle(sampling.prompts), BATCHES * sampling.batch))
    many = Sampling(prompts, seed=sampling.seed, batch=sampling.batch)

    def measured(tasks: list[Task], make: ExecutorFactory) -> object:
        return measure(tasks, make(original), Journal(None, {}))

    def generated(make: ExecutorFactory) -> bytes:
        return np.ascontiguousarray(generate_with(make, pipe, many)).tobytes()

    works: Mapping[str, tuple[int, Callable[[ExecutorFactory], object]]] = {
        f"noise of layers, {len(original.calls)} calls": (
            len(layers),
            functools.partial(measured, layers),
        ),
        f"plans, {len(sampling.prompts)} images each": (
            len(plans),
            functools.partial(measured, plans),
        ),
        f"images, batches of {many.batch}": (BATCHES, generated),
    }
    return [
        row(model, cluster, what, units, work, arguments.repeats)
        for what, (units, work) in works.items()
    ]


def row(
    model: str,
    cluster: RayCluster,
    what: str,
    units: int,
    work: Callable[[ExecutorFactory], object],
    repeats: int,
) -> dict[str, Any]:
    found: dict[str, object] = {}
    makers: Mapping[str, ExecutorFactory] = {HERE: InProcess, "ray": cluster}

    def run(name: str) -> None:
        found[name] = work(makers[name])

    ways = {name: functools.partial(run, name) for name in makers}
    seconds = interleaved_medians(ways, repeats=repeats, warmup=1)
    assert found[HERE] == found["ray"], f"{model}, {what}: the results differ"
    print(model, what, cluster.workers, {n: one.median for n, one in seconds.items()}, flush=True)
    return {
        "model": model,
        "what": what,
        "workers": cluster.workers,
        "units": units,
        "seconds": {name: dataclasses.asdict(one) for name, one in seconds.items()},
        "units_per_second": {name: units / one.median for name, one in seconds.items()},
        "throughput": 1 / seconds["ray"].ratio,
        "target": TARGETS.get(cluster.workers or 0),
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "| model | work | units | workers | in process (units/s) | Ray (units/s) | times as fast "
        "| target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in result["rows"]:
        rates, target = one["units_per_second"], one["target"]
        lines.append(
            f"| {one['model']} | {one['what']} | {one['units']} | {one['workers']} "
            f"| {rates[HERE]:.2f} | {rates['ray']:.2f} | {one['throughput']:.2f}× "
            f"| {'' if target is None else f'{target:g}×'} |"
        )
    context = result["context"]
    lines += [
        "",
        f"Medians of {context['repeats']} interleaved runs; figures and images are equal bit for "
        f"bit; each process has {context['threads']} thread"
        f"{'' if context['threads'] == 1 else 's'} of {context['processors']} processors; torch "
        f"{context['torch']}, load average {context['load']:.1f} at the end. Starting workers is "
        "not part of the time.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
