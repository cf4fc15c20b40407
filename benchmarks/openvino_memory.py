"""Memory and start of the openvino engine: kept on disk or not, first start and second.

A U-Net of Stable Diffusion's shape with narrower layers and random weights is packed once per
setting. Each row is a process of its own that loads it, computes one call, and says how long that
took and how much memory it had. Prints a Markdown table and writes it with all figures to
benchmarks/results/.

    python benchmarks/openvino_memory.py [--settings W8A8 W4A8 W4A16] [--dtype float32]
                                         [--ways "first start" "second start"] [--earlier SRC]

`--earlier` names the `src` folder of an older checkout: it adds a row that imports mezzotint from
there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from contestants.process_memory import peak_bytes, resident_bytes
from diffusers import UNet2DConditionModel

from mezzotint._files import write_json

RESULTS = Path(__file__).parent / "results"
SETTINGS = {
    "W8A8": ("int8/channel", "uint8/tensor"),
    "W4A8": ("int4/channel", "uint8/tensor"),
    "W4A16": ("int4/group32", "float"),
}
WAYS = ("not kept", "first start", "second start")
CONFIG = {"sample_size": 32, "cross_attention_dim": 768, "block_out_channels": (160, 320, 480, 480)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--earlier", type=Path, help="src folder of an older checkout")
    parser.add_argument("--cache", type=Path, default=Path(".cache") / "openvino_memory")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(figures(arguments.child, arguments.dtype)))
        return
    rows = []
    for setting in arguments.settings:
        folder = arguments.cache / setting
        if not (folder / "config.json").is_file():
            pack(setting, folder)
        with tempfile.TemporaryDirectory() as kept:
            variables = {way: {"MEZZOTINT_CACHE": kept} for way in arguments.ways}
            if "not kept" in variables:
                variables["not kept"] = {"MEZZOTINT_OPENVINO_CACHE": "0"}
            if arguments.earlier is not None:
                variables = {"earlier": {"PYTHONPATH": str(arguments.earlier)}} | variables
            for way in variables:
                row = in_process(folder, arguments.dtype, variables[way])
                rows.append({"setting": setting, "way": way} | row)
                print(rows[-1], file=sys.stderr, flush=True)
            disk = sum(path.stat().st_size for path in Path(kept).rglob("*") if path.is_file())
            rows[-1]["kept_bytes"] = disk
    result = {
        "rows": rows,
        "context": {
            "torch": torch.__version__,
            "dtype": arguments.dtype,
            "config": CONFIG,
            "load": os.getloadavg()[0],
        },
    }
    write_json(RESULTS / "openvino_memory.json", result)
    (RESULTS / "openvino_memory.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def model() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**CONFIG).eval()


def inputs(dtype: torch.dtype) -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "sample": torch.randn(1, 4, 32, 32).to(dtype),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.randn(1, 77, 768).to(dtype),
        "return_dict": False,
    }


def pack(setting: str, folder: Path) -> None:
    """Write the packed U-Net; ranges of weights are not searched, which changes no figure here."""
    import mezzotint as mz  # noqa: PLC0415  (rows choose where from)
    from mezzotint.calibration import calibrated  # noqa: PLC0415
    from mezzotint.checkpoint import mark_quantized  # noqa: PLC0415
    from mezzotint.formats import MINMAX  # noqa: PLC0415
    from mezzotint.models import Call  # noqa: PLC0415
    from mezzotint.plan import Encoding  # noqa: PLC0415
    from mezzotint.runtime import pack_module  # noqa: PLC0415

    unet = model()
    names = mz.uniform_plan(unet, weight_bits=8).choices
    plan = mz.Plan(
        dict.fromkeys(names, mz.Choice(*SETTINGS[setting])), encoding=Encoding(search=MINMAX)
    )
    pack_module(unet, plan, calibrated(unet, plan, [Call((), inputs(torch.float32))]))
    mark_quantized(unet, plan)
    unet.save_pretrained(folder)


def in_process(folder: Path, dtype: str, variables: dict[str, str]) -> dict[str, Any]:
    """The figures of a process of its own."""
    command = [sys.executable, __file__, "--child", str(folder), "--dtype", dtype]
    environment = os.environ | variables
    found = subprocess.run(  # noqa: S603  (this file)
        command, env=environment, check=True, capture_output=True, text=True
    )
    row: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return row


def figures(folder: Path, dtype_name: str) -> dict[str, Any]:
    """Load, compute one call, and look at this process."""
    import openvino  # noqa: F401, PLC0415  (its own memory is no row's)

    from mezzotint.engines import engine_named  # noqa: PLC0415

    dtype = getattr(torch, dtype_name)
    before = resident_bytes()
    begin, processor = time.perf_counter(), time.process_time()
    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype).eval()
    loaded, processor_loaded = time.perf_counter(), time.process_time()
    served = engine_named("openvino").attach(unet)
    with torch.no_grad():
        (output,) = served(**inputs(dtype))
    return {
        "load_seconds": loaded - begin,
        "start_seconds": time.perf_counter() - loaded,
        "start_processor_seconds": time.process_time() - processor_loaded,
        "load_processor_seconds": processor_loaded - processor,
        "peak_bytes": peak_bytes() - before,
        "after_bytes": resident_bytes() - before,
        "output": output.double().abs().mean().item(),
    }


def markdown(result: dict[str, Any]) -> str:
    lines = [
        f"# Memory and start of the openvino engine, {result['context']['dtype']}",
        "",
        "A U-Net of 142M weights. Memory is beyond that of the imports. A start is the first call "
        "of a loaded model. Processor seconds are this process's own, whatever else the machine "
        "did.",
        "",
        "| setting | | peak, MB | after, MB | start, processor s | on disk, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        disk = f"{row['kept_bytes'] / 1e6:.0f}" if "kept_bytes" in row else ""
        lines.append(
            f"| {row['setting']} | {row['way']} | {row['peak_bytes'] / 1e6:.0f} | "
            f"{row['after_bytes'] / 1e6:.0f} | {row['start_processor_seconds']:.1f} | {disk} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
