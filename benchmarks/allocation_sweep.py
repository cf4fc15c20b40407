"""Time of MixDQ's allocation on a model of the size of SDXL's UNet.

Generated scores and sizes of 794 layers: 420 at 2, 4 and 8 bits, 374 at 4 and 8. Times single
programs of both groups, and the sweep over the divisions of weights at an average of 4 bits.
Prints a Markdown table and writes it with all figures to benchmarks/results/.

    python benchmarks/allocation_sweep.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint._files import write_json
from mezzotint.allocation import BitProgram
from mezzotint.recipes.mixdq.split import WEIGHT_DIVISIONS
from mezzotint.recipes.mixdq.sweep import sweep

CONTENT, QUALITY = 420, 374
TARGET = 4.0
TOLERANCES = {"at most": None, "± 0.02": 0.02}
#: Content layers hold this many times the weights of the others, as in SDXL.
SIZE_RATIO = 2.2418
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    result = measure(generated(seed=0), parser.parse_args().repeats)
    write_json(RESULTS / "allocation_sweep.json", result)
    (RESULTS / "allocation_sweep.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def generated(seed: int) -> tuple[BitProgram, BitProgram]:
    rng = np.random.default_rng(seed)
    content = group(rng, "content", CONTENT, (2, 4, 8))
    quality = group(rng, "quality", QUALITY, (4, 8))
    scale = SIZE_RATIO * float(quality.size / content.size)
    sizes = {name: size * scale for name, size in content.sizes.items()}
    return BitProgram(content.scores, sizes), quality


def group(rng: np.random.Generator, label: str, layers: int, widths: tuple[int, ...]) -> BitProgram:
    sides = rng.choice([320, 640, 1280, 2560, 5120], (layers, 2))
    decibels = rng.normal(20, 6, layers)
    names = [f"{label}{i}" for i in range(layers)]
    scores = {
        name: {bits: float(base + 6.02 * bits + rng.normal()) for bits in widths}
        for name, base in zip(names, decibels, strict=True)
    }
    return BitProgram(scores, {n: float(a * b) for n, (a, b) in zip(names, sides, strict=True)})


def measure(groups: tuple[BitProgram, BitProgram], repeats: int) -> dict[str, Any]:
    rows = []
    for window, tolerance in TOLERANCES.items():
        for label, one, average in (("content", groups[0], 3.4), ("quality", groups[1], 5.4)):
            seconds, found = timed(lambda: one.allocate(average, tolerance), repeats)  # noqa: B023
            rows.append(row(f"{label} program", window, 1, seconds, [found.gap]))
        seconds, candidates = timed(
            lambda: sweep(groups, TARGET, WEIGHT_DIVISIONS, tolerance),  # noqa: B023
            repeats,
        )
        gaps = [half.gap for each in candidates for half in (each.first, each.second)]
        rows.append(row(f"sweep at {TARGET:g} bits", window, len(candidates), seconds, gaps))
    context = {
        "layers": [CONTENT, QUALITY],
        "repeats": repeats,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "scipy": metadata.version("scipy"),
    }
    return {"rows": rows, "context": context}


def timed(work: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return seconds, found


def row(
    what: str, window: str, count: int, seconds: list[float], gaps: list[float]
) -> dict[str, Any]:
    return {
        "what": what,
        "window": window,
        "candidates": count,
        "median_seconds": statistics.median(seconds),
        "seconds": seconds,
        "largest_gap": max(gaps),
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "| what | average | candidates | median | fastest | largest gap |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['what']} | {one['window']} | {one['candidates']} | {one['median_seconds']:.3f} s "
        f"| {min(one['seconds']):.3f} s | {one['largest_gap']:.1e} |"
        for one in result["rows"]
    ]
    context = result["context"]
    lines += [
        "",
        f"{sum(context['layers'])} layers of generated scores and sizes, the content group "
        f"{SIZE_RATIO} times the size of the quality group; median of {context['repeats']} runs, "
        f"one after the other; Python {context['python']}, SciPy {context['scipy']}, "
        f"{context['machine']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
