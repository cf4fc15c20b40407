"""The Triton kernels against torch's own layers in half precision, on a CUDA device.

Layers of SDXL, each way captured in a CUDA graph of several calls, so that neither Python nor
launches count; the graphs are replayed in turns A, B, A, B. Every output is compared with the
reference kernel's in float32. Prints a Markdown table and writes it with all figures to
benchmarks/results/.

    python benchmarks/gpu_kernels.py [--repeats 15] [--calls 20] [--layers 'conv*']
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint._files import write_json
from mezzotint.formats import MINMAX
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.profiling import interleaved_medians
from mezzotint.runtime import Calibration, InputRange, QuantLayer, executions, quantize_module
from mezzotint.runtime.reference_kernel import ReferenceKernel

RESULTS = Path(__file__).parent / "results"

#: Tokens, inputs, outputs of a linear; inputs, outputs, height and width of a 3×3 convolution.
LINEARS = (
    (1, 1280, 1280),
    (154, 2048, 640),
    (8192, 640, 640),
    (8192, 640, 5120),
    (8192, 2560, 640),
    (2048, 1280, 1280),
    (2048, 1280, 10240),
    (2048, 5120, 1280),
)
CONVS = ((4, 320, 128), (320, 320, 128), (640, 640, 64), (1280, 1280, 32), (2560, 1280, 32))
BATCH = 2

CHOICES = (
    ("int8/channel", "int8/token"),
    ("int8/channel", "uint8/tensor"),
    ("int4/channel", "int8/token"),
    ("uint3/channel", "int8/token"),
    ("int8/channel", "float"),
    ("int4/channel", "float"),
    ("int4/group64", "float"),
    ("kmeans4/channel", "float"),
)
BASELINES = {"torch fp16": torch.float16, "torch bf16": torch.bfloat16}

#: Beyond, a kernel computes something else: products of half precision differ by less.
LARGEST_ERROR = 5e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--calls", type=int, default=20, help="of a layer, in one graph")
    parser.add_argument("--layers", default="*", help="only those of a name like this")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here: these kernels run on one, and nothing was measured")
    rows = [
        row(name, layer, x, arguments.repeats, arguments.calls)
        for name, layer, x in layers()
        if fnmatch(name, arguments.layers)
    ]
    if not rows:
        sys.exit(f"no layer has a name like {arguments.layers!r}; nothing was measured")
    result = {
        "rows": rows,
        "context": {
            "device": torch.cuda.get_device_name(),
            "capability": torch.cuda.get_device_capability(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "repeats": arguments.repeats,
            "calls": arguments.calls,
        },
    }
    write_json(RESULTS / "gpu_kernels.json", result)
    (RESULTS / "gpu_kernels.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def layers() -> list[tuple[str, nn.Linear | nn.Conv2d, Tensor]]:
    """Float layers of random weights, and their inputs."""
    torch.manual_seed(0)
    found: list[tuple[str, nn.Linear | nn.Conv2d, Tensor]] = []
    with torch.device("cuda"):
        for tokens, inputs, outputs in LINEARS:
            name = f"linear {tokens}×{inputs}→{outputs}"
            found.append((name, nn.Linear(inputs, outputs), torch.randn(tokens, inputs)))
        for inputs, outputs, size in CONVS:
            name = f"conv {inputs}→{outputs}, {size}²"
            x = torch.randn(BATCH, inputs, size, size).to(memory_format=torch.channels_last)
            found.append((name, nn.Conv2d(inputs, outputs, 3, padding=1), x))
    return found


@torch.no_grad()
def row(
    name: str, layer: nn.Linear | nn.Conv2d, x: Tensor, repeats: int, calls: int
) -> dict[str, Any]:
    replays: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, Any]] = {}
    for label, dtype in BASELINES.items():
        stock = copy.deepcopy(layer).to(dtype).to(memory_format=torch.channels_last)
        replays[label] = captured(stock, x.to(dtype), calls)
        facts[label] = {}
    half = x.half()
    for choice in CHOICES:
        label = " × ".join(choice)
        packed = pack(layer, Choice(*choice))
        execution = executions(nn.Sequential(packed))[0]
        output = packed(half).float()
        expected = ReferenceKernel().run(packed, half.float())
        error = float((output - expected).norm() / expected.norm())
        facts[label] = {"kernel": execution.kernel, "reason": execution.reason, "error": error}
        assert error < LARGEST_ERROR, f"{name}, {label}: off by {error:.2g}"
        replays[label] = captured(packed, half, calls)
    if isinstance(layer, nn.Linear) and len(x) > 16:
        codes, weight = (
            torch.randint_like(x, -127, 127),
            torch.randint_like(layer.weight, -127, 127),
        )
        weight = weight.to(torch.int8).t()
        replays["_int_mm alone"] = captured(
            lambda codes: torch._int_mm(codes, weight), codes.to(torch.int8), calls
        )
        facts["_int_mm alone"] = {}
    times = interleaved_medians(replays, repeats=repeats)
    print(name, {label: round(1 / time.ratio, 2) for label, time in times.items()}, flush=True)
    ways = {
        label: facts[label] | {"seconds": dataclasses.asdict(time), "speedup": 1 / time.ratio}
        for label, time in times.items()
    }
    return {"layer": name, "ways": ways}


def pack(layer: nn.Linear | nn.Conv2d, choice: Choice) -> QuantLayer:
    module = nn.Sequential(layer)
    ranges = (InputRange(-4.0, 4.0),)
    plan = Plan({"0": choice}, encoding=Encoding(MINMAX))
    quantize_module(module, plan, Calibration({"0": ranges}))
    packed = module[0]
    assert isinstance(packed, QuantLayer)
    return packed


def captured(call: Callable[[Tensor], Tensor], x: Tensor, calls: int) -> Callable[[], object]:
    """Replays of a graph of several calls; block sizes are chosen before."""
    for _ in range(3):
        call(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call(x)
    return graph.replay


def markdown(result: dict[str, Any]) -> str:
    """Speed-ups over torch in fp16."""
    context = result["context"]
    labels = list(dict.fromkeys(label for one in result["rows"] for label in one["ways"]))
    lines = [
        f"On {context['device']}, torch {context['torch']}: times faster than torch in fp16.",
        "",
        f"| layer | {' | '.join(labels)} |",
        f"|---|{'---|' * len(labels)}",
    ]
    for one in result["rows"]:
        cells = [
            f"{one['ways'][label]['speedup']:.2f}" if label in one["ways"] else ""
            for label in labels
        ]
        lines.append(f"| {one['layer']} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
