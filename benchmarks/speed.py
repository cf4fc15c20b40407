"""Speed of a whole denoiser: ours, plain torch, and everybody else's quantizers.

Contestants live in processes and environments of their own (made on first use), are called in
turns A, B, A, B, and checked against the output in float32. Finished rows are kept: run it again
to go on.

    python benchmarks/speed.py [--models emoji-turbo sd15] [--contestants 'torch-*' 'mezzotint-*']
                               [--batches 1 2] [--repeats 9] [--threads 2] [--device cpu]

docs/benchmarks.md says what the columns are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from contestants import hardware
from contestants.denoisers import DENOISERS
from contestants.speed_comparison import Row, SpeedComparison
from contestants.speed_contestants import Contestant, selected, speed_contestants
from contestants.speed_table import markdown
from contestants.timed_denoiser import TimedDenoiser

from mezzotint._files import write_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    arguments = parsed()
    device = arguments.device
    dtype = hardware.fast_dtype(device) if arguments.dtype == "auto" else arguments.dtype
    here = hardware.describe(device, arguments.threads)
    results = Results(arguments.results, here)
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[dtype]
    baselines = selected(arguments.baselines or ["torch-fp32", f"torch-{short}"])
    for denoiser in arguments.models:
        target = TimedDenoiser(
            denoiser, device, dtype, arguments.threads, arguments.cache, arguments.timeout
        )
        missing: dict[tuple[int, ...], list[Contestant]] = {}
        for contestant in selected(arguments.contestants):
            batches = tuple(
                batch for batch in arguments.batches
                if arguments.fresh
                or not results.has(denoiser, batch, contestant, arguments.repeats)
            )  # fmt: skip
            missing.setdefault(batches, []).append(contestant)
        for batches, contestants in missing.items():
            if not batches:
                continue
            comparison = SpeedComparison(target, batches, arguments.repeats, arguments.slowest)
            for row in comparison.rows(contestants, baselines):
                results.keep(row)
                print(shown(row), flush=True)
    print(markdown(results.rows, results.machines))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=list(DENOISERS), default=list(DENOISERS))
    add("--contestants", nargs="+", help="only these; patterns such as 'torch-*' will do")
    add("--baselines", nargs="+", help="loaded all the time; default: fp32 and the fast 16 bits")
    add("--batches", nargs="+", type=int, default=[1, 2])
    add("--repeats", type=int, default=9, help="timed rounds after two of warm-up")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto",
        help="of what is not quantized")  # fmt: skip
    add("--slowest", type=float, default=20,
        help="times a baseline's seconds; whoever takes longer is not timed further")  # fmt: skip
    add("--timeout", type=float, default=3600, help="seconds that one step may take")
    add("--fresh", action="store_true", help="measure finished rows again")
    add("--cache", type=Path, default=Path(".cache"), help="environments, weights, packed files")
    add("--results", type=Path, default=RESULTS / "speed.json")
    add("--list", action="store_true", help="name the contestants and end")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(contestant.name for contestant in speed_contestants()))
        parser.exit()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    selected(arguments.contestants)
    return arguments


class Results:
    """The rows of all runs, and the machines they were measured on."""

    def __init__(self, path: Path, here: dict[str, Any]) -> None:
        self.path, self.here = path, here
        saved = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self.rows: list[Row] = saved.get("rows", [])
        self.machines: dict[str, Any] = saved.get("machines", {})

    def has(self, denoiser: str, batch: int, contestant: Contestant, repeats: int) -> bool:
        """True if this was measured here, with enough repeats."""
        place = (self.here["name"], denoiser, batch, contestant.name)
        return any(_place(row) == place and row["repeats"] >= repeats for row in self.rows)

    def keep(self, row: Row) -> None:
        """Add or replace a row, and write both files."""
        row = row | {"machine": self.here["name"]}
        self.machines[self.here["name"]] = self.here
        self.rows = [one for one in self.rows if _place(one) != _place(row)] + [row]
        order = {contestant.name: index for index, contestant in enumerate(speed_contestants())}
        shapes = list(DENOISERS)
        self.rows.sort(
            key=lambda one: (
                one["machine"],
                shapes.index(one["denoiser"]),
                one["batch"],
                order.get(one["contestant"], len(order)),
            )
        )
        write_json(self.path, {"machines": self.machines, "rows": self.rows})
        table = markdown(self.rows, self.machines)
        self.path.with_suffix(".md").write_text(table, "utf-8")


def _place(row: Row) -> tuple[object, ...]:
    return row["machine"], row["denoiser"], row["batch"], row["contestant"]


def shown(row: Row) -> str:
    head = f"{row['denoiser']} batch {row['batch']} {row['contestant']}"
    if "reason" in row:
        return f"{head}: {row['reason']}"
    ratios = ", ".join(f"{one['ratio']:.2f}x {name}" for name, one in row["speedup"].items())
    return f"{head}: {row['time']['median']:.3f} s ({ratios}), error {row['relative_error']:.1e}"


if __name__ == "__main__":
    main()
