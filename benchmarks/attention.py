"""Attention on this processor: torch's own function against ours, shape by shape.

One thread. The ways take turns, and processor time is counted, so that others on the machine
disturb the ratios little. Errors are root mean squares against float64, by that of the output.
Prints a Markdown table and writes it with all figures to benchmarks/results/.

    python benchmarks/attention.py [--repeats 7] [--shapes 4096x8x40x4096 ...]

A shape is queries × heads × features of a head × keys.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from contestants.hardware import describe
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mezzotint._files import write_json
from mezzotint.profiling import interleaved_medians
from mezzotint.runtime.attention.call import plain_call
from mezzotint.runtime.attention.fused import attend_fused, unit_for
from mezzotint.runtime.attention.ways import TORCH, WAYS

SHAPES = {
    "4096x8x40x4096": "SD1.5, 64² latents",
    "1024x8x80x1024": "SD1.5",
    "256x8x160x256": "SD1.5",
    "4096x8x40x77": "SD1.5, text",
    "4096x10x64x4096": "SDXL, 128² latents",
    "1024x20x64x1024": "SDXL",
    "4096x10x64x77": "SDXL, text",
    "1024x20x64x77": "SDXL, text",
    "4096x16x72x4096": "PixArt, 1024²",
    "1024x16x72x1024": "PixArt, 512²",
    "4096x16x72x300": "PixArt, text",
    "4096x1x512x4096": "VAE, 64² latents",
    "256x4x64x256": "small",
    "64x4x64x64": "small",
}
RESULTS = Path(__file__).parent / "results"

Way: TypeAlias = tuple[str, torch.dtype]
WAYS_TIMED: tuple[Way, ...] = (
    (TORCH, torch.float32),
    (TORCH, torch.bfloat16),
    ("blocks", torch.bfloat16),
    ("fused", torch.bfloat16),
    ("fused", torch.float32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "rows": [row(shape, arguments.repeats) for shape in arguments.shapes],
        "machine": describe("cpu", 1),
        "units": {
            label(("fused", dtype)): getattr(unit_for(dtype), "name", None)
            for dtype in (torch.bfloat16, torch.float32)
        },
        "load": os.getloadavg()[0],
        "repeats": arguments.repeats,
    }
    write_json(RESULTS / "attention.json", result)
    (RESULTS / "attention.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def label(way: Way) -> str:
    return f"{way[0]} {str(way[1]).removeprefix('torch.')}"


def row(shape: str, repeats: int) -> dict[str, Any]:
    queries, heads, features, keys = map(int, shape.split("x"))
    torch.manual_seed(0)
    # The heads of a token stand together, as projections give them.
    operands = [torch.randn(1, n, heads, features).transpose(1, 2) for n in (queries, keys, keys)]
    functions = {label(way): computed(way, operands) for way in WAYS_TIMED if is_able(way)}
    found = interleaved_medians(functions, repeats=repeats, clock=time.thread_time)
    print(shape, {name: f"{1e3 * one.median:.1f} ms" for name, one in found.items()}, flush=True)
    rounded = {dtype: [x.to(dtype).double() for x in operands] for _, dtype in WAYS_TIMED}
    expected = {d: scaled_dot_product_attention(*x) for d, x in rounded.items()}
    return {
        "shape": shape,
        "what": SHAPES.get(shape, ""),
        "seconds": {name: dataclasses.asdict(one) for name, one in found.items()},
        "errors": {
            label(way): error(functions[label(way)](), expected[way[1]])
            for way in WAYS_TIMED
            if is_able(way)
        },
    }


def is_able(way: Way) -> bool:
    return way[0] != "fused" or unit_for(way[1]) is not None


def computed(way: Way, operands: list[Tensor]) -> Callable[[], Tensor]:
    name, dtype = way
    query, key, value = (each.to(dtype) for each in operands)
    if name == TORCH:
        return functools.partial(scaled_dot_product_attention, query, key, value)
    call = plain_call(query, key, value, None, False, None, False)
    assert call is not None
    return functools.partial(attend_fused if name == "fused" else WAYS[name], call)


def error(found: Tensor, expected: Tensor) -> float:
    difference = (found.double() - expected).square().mean().sqrt()
    return float(difference / expected.square().mean().sqrt())


def markdown(result: dict[str, Any]) -> str:
    first, *others = (label(way) for way in WAYS_TIMED if is_able(way))
    base = label((TORCH, torch.bfloat16))
    lines = [
        f"| queries × heads × features × keys | | {first} (ms) | "
        + " | ".join(f"{name} (ms, times as fast, error)" for name in others)
        + " |",
        "|---|---|---|" + "---|" * len(others),
    ]
    for one in result["rows"]:
        seconds, errors = one["seconds"], one["errors"]

        def cell(name: str, seconds: Any = seconds, errors: Any = errors) -> str:
            own = base if name.endswith("bfloat16") else first
            ratio = seconds[own]["median"] / seconds[name]["median"]
            return f"{1e3 * seconds[name]['median']:.2f}, {ratio:.2f}×, {errors[name]:.1e}"

        cells = [f"{1e3 * seconds[first]['median']:.2f}", *map(cell, others)]
        shape = one["shape"].replace("x", " × ")
        lines.append(f"| {shape} | {one['what']} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Medians of {result['repeats']} interleaved repeats, processor time of one thread; times "
        f"as fast as torch's function in the same dtype. {result['machine']['name']}; units: "
        f"{', '.join(f'{unit} for {name}' for name, unit in result['units'].items())}. Load "
        f"average {result['load']:.1f} at the end.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
