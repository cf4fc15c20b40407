"""Microseconds that a packed layer's call takes beside its products, as against torch's own layer.

Layers so small that nothing is computed to speak of: what remains is Python, torch and the C
function's own preparations. Written to benchmarks/results/layer_overhead.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.contestants import hardware
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.runtime import pack_layer
from mezzotint.runtime.cpu import units

RESULTS = Path(__file__).parent / "results" / "layer_overhead.md"
WEIGHTS = ("int8/channel", "int4/channel", "uint4/channel", "lut4/channel")
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear 64→64, 1 token": (lambda: nn.Linear(64, 64), (1, 64)),
    "Conv2d 16→16, 3×3, 4×4 pixels": (lambda: nn.Conv2d(16, 16, 3, padding=1), (1, 16, 4, 4)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=200, help="between two readings of the clock")
    given = parser.parse_args()
    torch.set_num_threads(1)
    unit, machine = units.unit(), hardware.name(hardware.describe("cpu", 1))
    lines = [
        "# Overhead of a packed layer's call", "",
        f"Median of {given.rounds} rounds of {given.calls} calls, in turns; {machine}; bfloat16, "
        f"{unit.name if unit else 'no unit'}.", "",
        "| layer | " + " | ".join(("torch bfloat16", *WEIGHTS)) + " |",
        "|---" * (2 + len(WEIGHTS)) + "|",
    ]  # fmt: skip
    with torch.inference_mode():
        for name, (made, shape) in LAYERS.items():
            found = overheads(made().bfloat16(), torch.randn(shape).bfloat16(), given)
            lines.append(f"| {name} | " + " | ".join(f"{each:.1f} µs" for each in found) + " |")
    RESULTS.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def overheads(layer: nn.Module, x: Tensor, given: argparse.Namespace) -> list[float]:
    """Microseconds of a call of the floating layer, and of each packed one."""
    layers = [layer, *(packed(layer, weight) for weight in WEIGHTS)]
    times: list[list[float]] = [[] for _ in layers]
    for _ in range(given.rounds + 1):
        for each, own in zip(layers, times, strict=True):
            start = time.thread_time()
            for _ in range(given.calls):
                each(x)
            own.append((time.thread_time() - start) / given.calls * 1e6)
    return [statistics.median(own[1:]) for own in times]


def packed(layer: nn.Module, weight: str) -> nn.Module:
    plan = Plan({"layer": Choice(weight, "int8/token")}, encoding=Encoding(MINMAX))
    return pack_layer("layer", layer, plan)


if __name__ == "__main__":
    main()
