"""Time of measuring, with and without replaying the layers that run before the changed one.

For each embedded model, layers from the first to the last at an even distance: the noise of the
denoiser's output over recorded calls at six choices each, and the similarity of images at 1 and 4
steps at the three that change weights only. Scores of both ways must be equal. Prints a Markdown
table and writes it with all figures to benchmarks/results/.

    python benchmarks/measuring.py [--models emoji-turbo emoji-dit] [--layers 12] [--repeats 5]
                                   [--clock wall]

On a machine that others use too, `--clock processor` counts this process's processor time only.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint._journal import Journal
from mezzotint.measuring import (
    CACHE_BYTES,
    InProcess,
    LayerChange,
    Noise,
    Original,
    Similarity,
    measure_layers,
)
from mezzotint.models import find_denoiser, inventory, record_calls
from mezzotint.plan import Choice
from mezzotint.profiling import Latency, interleaved_medians
from mezzotint.recipes.default_prompts import default_sampling

CHOICES = (
    *(Choice(f"int{bits}/channel") for bits in (2, 4, 8)),
    *(Choice(f"int{bits}/channel", "int8/token") for bits in (2, 4, 8)),
)
#: One way is timed per name; the second is compared with the first.
WAYS = {"in full": 0, "replayed": CACHE_BYTES}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji-turbo", "emoji-dit"])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    arguments = parser.parse_args()
    timer = functools.partial(
        interleaved_medians, repeats=arguments.repeats, warmup=0, clock=CLOCKS[arguments.clock]
    )
    rows = [row for model in arguments.models for row in rows_of(model, arguments.layers, timer)]
    result = {
        "rows": rows,
        "context": {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
            "repeats": arguments.repeats,
            "clock": arguments.clock,
        },
    }
    write_json(RESULTS / "measuring.json", result)
    (RESULTS / "measuring.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def rows_of(
    model: str, layers: int, timer: Callable[..., dict[str, Latency]]
) -> list[dict[str, Any]]:
    pipe = mz.load(model)
    denoiser = find_denoiser(pipe)[1]
    names = [layer.name for layer in inventory(denoiser) if layer.supported]
    # Those in the middle of equal stretches, so that their mean position is that of all layers.
    chosen = [names[int((i + 0.5) * len(names) / layers)] for i in range(layers)]
    changes = [LayerChange(name, choice) for name in chosen for choice in CHOICES]
    weights = [change for change in changes if change.choice.activation_format is None]
    sampling = default_sampling(pipe)
    calls = record_calls(pipe, sampling)

    def outputs(cache_bytes: int) -> object:
        executor = InProcess(Original(denoiser, calls), cache_bytes)
        return measure_layers(changes, Noise(), executor, Journal(None, {}))

    def images(original: Original, cache_bytes: int) -> object:
        executor = InProcess(original, cache_bytes)
        return measure_layers(weights, Similarity(), executor, Journal(None, {}))

    rows = [row(model, f"noise, {len(calls)} calls", len(changes), outputs, timer)]
    for steps in (1, 4):
        stepped = dataclasses.replace(sampling, steps=steps)
        original = Original(denoiser, pipe=pipe, sampling=stepped)
        assert len(original.images.images) == len(sampling.prompts)  # made once, before the clock
        rows.append(
            row(
                model,
                f"images, steps: {steps}",
                len(weights),
                functools.partial(images, original),
                timer,
            )
        )
    return rows


def row(
    model: str,
    what: str,
    units: int,
    way: Callable[[int], object],
    timer: Callable[..., dict[str, Latency]],
) -> dict[str, Any]:
    found: dict[str, object] = {}

    def run(name: str) -> None:
        found[name] = way(WAYS[name])

    timed = {name: functools.partial(run, name) for name in WAYS}
    seconds = timer(timed)
    full, replayed = found.values()
    assert full == replayed, f"{model}, {what}: the scores differ"
    print(model, what, {name: one.median for name, one in seconds.items()}, flush=True)
    return {
        "model": model,
        "what": what,
        "units": units,
        "seconds": {name: dataclasses.asdict(one) for name, one in seconds.items()},
        "units_per_second": {name: units / one.median for name, one in seconds.items()},
        "speedup": 1 / seconds["replayed"].ratio,
        "scores_equal": full == replayed,
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "| model | measured | units | in full (units/s) | replayed (units/s) | faster by "
        "| scores equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in result["rows"]:
        rates = one["units_per_second"]
        lines.append(
            f"| {one['model']} | {one['what']} | {one['units']} | {rates['in full']:.2f} "
            f"| {rates['replayed']:.2f} | {one['speedup']:.2f}× "
            f"| {'yes' if one['scores_equal'] else 'no'} |"
        )
    context = result["context"]
    lines += [
        "",
        f"Batches of 8 prompts; medians of {context['repeats']} interleaved runs in "
        f"{context['clock']} time; packing each "
        "layer and, for replayed units, watching and advancing are part of the time; torch "
        f"{context['torch']}, {context['threads']} of {context['processors']} processors, load "
        f"average {context['load']:.1f} at the end. No layer can be measured faster than what "
        "runs after it.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
