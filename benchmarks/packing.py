"""Time of packing a model of SDXL's shape, by weight format, on one core.

Each distinct shape of SDXL's quantizable layers is packed with seeded normal weights in float16, by
the default search of ranges and rounding to nearest; error feedback is not counted. Seconds of the
whole model are calculated: those of each shape times the number of its layers. Prints a Markdown
table and writes it with all figures to benchmarks/results/.

    PYTHONPATH=. python benchmarks/packing.py [--formats int4/channel lut4/channel] [--repeats 3]
                                              [--clock processor]
"""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from contestants.denoisers import DENOISERS
from contestants.hardware import describe

from mezzotint._files import write_json
from mezzotint.formats import parse_weight_format
from mezzotint.models import inventory
from mezzotint.plan import Encoding
from mezzotint.profiling import interleaved_medians
from mezzotint.runtime.encode import encoded_part
from mezzotint.runtime.packed import PartCalibration

FORMATS = (
    "int2/channel", "int4/channel", "int8/channel", "uint4/channel", "int4/group64",
    "lut2/channel", "lut4/channel", "lut6/channel",
)  # fmt: skip
NEAREST = Encoding(rounding="nearest")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
RESULTS = Path(__file__).parent / "results"

Shape = tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor")
    parser.add_argument("--results", type=Path, default=RESULTS / "packing.json")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    shapes = sdxl_shapes()
    timer = functools.partial(seconds, repeats=chosen.repeats, clock=CLOCKS[chosen.clock])
    found = {shape: timer(shape, chosen.formats) for shape in shapes}
    rows = [row(name, shapes, {shape: each[name] for shape, each in found.items()})
            for name in chosen.formats]  # fmt: skip
    context = {
        "machine": describe("cpu", 1),
        "parameters": sum(count * size(shape) for shape, count in shapes.items()),
        "layers": sum(shapes.values()),
        "repeats": chosen.repeats,
        "clock": chosen.clock,
    }
    result = {"context": context, "rows": rows}
    write_json(chosen.results, result)
    chosen.results.with_suffix(".md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def sdxl_shapes() -> Counter[Shape]:
    """Shape of a weight → layers of SDXL's U-Net that have it."""
    denoiser = DENOISERS["sdxl"]
    with torch.device("meta"):
        hollow = getattr(diffusers, denoiser.class_name)(**denoiser.config)
    return Counter(tuple(layer.weight_shape) for layer in inventory(hollow) if layer.supported)


def size(shape: Shape) -> int:
    return torch.Size(shape).numel()


def kind(shape: Shape) -> str:
    """The class of layers that a shape belongs to."""
    if len(shape) == 2:
        return "linear"
    return "convolution 3×3" if shape[-1] == 3 else "convolution 1×1"


def seconds(
    shape: Shape, formats: list[str], *, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Format → seconds that a weight of that shape takes to be packed: the least of the repeats."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02).half()

    def pack(name: str) -> None:
        weight_format = parse_weight_format(name)
        assert weight_format is not None, f"{name} is no weight format"
        encoded_part(weight_format, weight, NEAREST, PartCalibration())

    timed = interleaved_medians(
        {name: functools.partial(pack, name) for name in formats},
        repeats=repeats, warmup=1, clock=clock,
    )  # fmt: skip
    print(shape, {name: f"{one.minimum:.3f}" for name, one in timed.items()}, flush=True)
    return {name: one.minimum for name, one in timed.items()}


def row(name: str, shapes: Counter[Shape], found: Mapping[Shape, float]) -> dict[str, Any]:
    whole: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for shape, count in shapes.items():
        whole[kind(shape)] += count * found[shape]
        weights[kind(shape)] += count * size(shape)
    return {
        "format": name,
        "seconds": sum(whole.values()),
        "weights_per_second": {each: weights[each] / whole[each] for each in whole},
        "shapes": {"×".join(map(str, shape)): found[shape] for shape in shapes},
    }


def markdown(result: dict[str, Any]) -> str:
    kinds = list(result["rows"][0]["weights_per_second"])
    titles = " | ".join(f"{each} (10⁶ weights/s)" for each in kinds)
    lines = [
        f"| format | SDXL's U-Net (s) | {titles} |",
        "|---|---|" + "---|" * len(kinds),
    ]
    for one in result["rows"]:
        rates = " | ".join(f"{one['weights_per_second'][each] / 1e6:.0f}" for each in kinds)
        lines.append(f"| `{one['format']}` | {one['seconds']:.0f} | {rates} |")
    context = result["context"]
    lines += [
        "",
        f"{context['machine']['name']}; {context['layers']} layers of {context['parameters']:,} "
        "weights. Each distinct shape was packed, and its time multiplied by the number of its "
        f"layers: the least of {context['repeats']} interleaved repeats in {context['clock']} "
        "time, one thread. Counted are the search over forty ranges, rounding to nearest, and "
        "packing of the codes.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
