"""Time of packed denoisers of MPQ-DM and of ours, beside uniform ones of as many nominal bits.

All are of emoji-teacher and not trained: training changes values, and neither formats nor kernels.
They are called in turns A, B, A, B on one recorded call, the uniform plan being what the others are
compared with. Prints a Markdown table and writes it with all figures to benchmarks/results/.

    PYTHONPATH=. python benchmarks/mpqdm_speed.py [--weight-bits 2] [--act-bits 4] [--batch 4]
                                                  [--repeats 15]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch
from contestants.hardware import describe
from contestants.mpqdm_rows import AS_PUBLISHED, BASE, BEST, NO_TRAINING, TEACHER

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.models import find_denoiser, record_calls
from mezzotint.profiling import interleaved_medians
from mezzotint.runtime import module_bytes

RESULTS = Path(__file__).parent / "results"
PER_TOKEN, FLOAT = "uniform, inputs per token", "float"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weight-bits", type=int, default=2)
    parser.add_argument("--act-bits", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4, help="images; guidance doubles the rows")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS / "mpqdm_speed.json")
    chosen = parser.parse_args()
    pipe = mz.load(TEACHER)
    results = packed(pipe, chosen.weight_bits, chosen.act_bits)
    denoisers = {name: result.denoiser for name, result in results.items()}
    denoisers[FLOAT] = find_denoiser(pipe)[1]
    sampling = mz.Sampling(prompts=("owl",) * chosen.batch, batch=chosen.batch)
    (call,) = record_calls(pipe, sampling, limit=1)
    with torch.no_grad():
        timed = interleaved_medians(
            {name: functools.partial(call.run, each) for name, each in denoisers.items()},
            repeats=chosen.repeats,
        )
    rows = [
        {"way": name, "bytes": module_bytes(denoisers[name])} | dataclasses.asdict(latency)
        for name, latency in timed.items()
    ]
    machine = describe("cpu", torch.get_num_threads())["name"]
    setting = f"W{chosen.weight_bits}A{chosen.act_bits}"
    context = {"model": TEACHER, "setting": setting, "batch": chosen.batch, "machine": machine}
    found = {"context": context | {"repeats": chosen.repeats}, "rows": rows}
    write_json(chosen.results, found)
    chosen.results.with_suffix(".md").write_text(markdown(found), "utf-8")
    print(markdown(found))


def packed(pipe: Any, weight_bits: int, act_bits: int) -> dict[str, mz.Result]:
    """The quantized models by name, the one that others are compared with first."""
    denoiser = find_denoiser(pipe)[1]
    nominal = mz.Budget(weight_bits=weight_bits, act_bits=act_bits)
    uniform = mz.uniform_plan(denoiser, weight_bits=weight_bits, act_bits=act_bits)
    found = {PER_TOKEN: mz.apply(pipe, uniform)}
    found["uniform PTQ"] = mz.quantize(pipe, mz.MPQDM(**BASE | NO_TRAINING), nominal)
    published = mz.quantize(pipe, mz.MPQDM(**AS_PUBLISHED, train_steps=0), nominal)
    found["MPQ-DM"] = published
    same_bytes = mz.Budget(size=module_bytes(published.denoiser), act_bits=act_bits)
    found["ours"] = mz.quantize(pipe, mz.MPQDM(**BEST, train_steps=0), same_bytes)
    return found


def markdown(found: dict[str, Any]) -> str:
    context = found["context"]
    lines = ["| way | bytes | milliseconds | times the uniform plan's |", "|---|---|---|---|"]
    lines += [
        f"| {row['way']} | {row['bytes']:,} | {1e3 * row['median']:.1f} "
        f"[{1e3 * row['minimum']:.1f}, {1e3 * row['maximum']:.1f}] | {row['ratio']:.2f} |"
        for row in found["rows"]
    ]
    lines += [
        "",
        f"{context['model']}, {context['setting']}, one call of {context['batch']} images with "
        f"guidance; median [lowest, highest] of {context['repeats']} rounds in turns; "
        f"{context['machine']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
