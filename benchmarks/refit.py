"""A plan refitted from a base's, against one found anew: noise, and processor time.

The fine-tunes are copies of the embedded models with a LoRA of random directions merged, and
emoji-turbo, which was distilled from emoji-teacher. Both plans of a fine-tune are run on prompts
that neither was found on. Writes benchmarks/results/refit.json and refit.md; finished rows are
kept. Journals of the bases are those of benchmarks/sweep.py.

    python benchmarks/refit.py [--bases emoji-turbo emoji-dit emoji-teacher] [--bits 4]
                               [--no-exchanges] [--cache .cache]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from contestants.hardware import describe
from diffusers import DiffusionPipeline
from torch import nn

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.checkpoint import read_plan
from mezzotint.measuring import decibels
from mezzotint.measuring.metrics.noise import relative_noise
from mezzotint.models import find_denoiser, record_calls
from mezzotint.recipes.default_prompts import default_sampling

RESULTS = Path(__file__).parent / "results" / "refit.json"
BASES = ("emoji-turbo", "emoji-dit", "emoji-teacher")
RANK, SHARE = 8, 0.1
"""Rank of the merged LoRA, and its Frobenius norm over that of the weight."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", choices=BASES, default=BASES)
    parser.add_argument("--bits", type=float, default=4.0)
    parser.add_argument("--no-exchanges", dest="exchanges", action="store_false")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="results of the bases")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path: Path = arguments.results
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    options = mz.Auto(exchanges=arguments.exchanges)
    for base in arguments.bases:
        asked = (base, arguments.bits, arguments.exchanges)
        if any((one["base"], one["bits"], one["exchanges"]) == asked for one in rows):
            continue
        rows.append(compared(base, arguments.bits, options, arguments.cache))
        write_json(path, rows)
        path.with_suffix(".md").write_text(markdown(rows), "utf-8")
    print(markdown(rows))


def compared(base: str, bits: float, options: mz.Auto, cache: Path) -> Row:
    budget = mz.Budget(weight_bits=bits)
    folder = cache / f"{base}-{bits:g}{'' if options.exchanges else '-no-exchanges'}"
    if not folder.exists():
        journal = cache / f"{base}.journal.jsonl"
        mz.quantize(mz.load(base), options, budget, journal=journal).save(folder)
    distilled = base == "emoji-teacher"
    pipe = mz.load("emoji-turbo") if distilled else with_merged_lora(mz.load(base))
    started = time.process_time()
    fresh = mz.quantize(pipe, options, budget)
    between = time.process_time()
    refit = mz.quantize(pipe, dataclasses.replace(options, refit=str(folder)), budget)
    ended = time.process_time()
    calls = record_calls(pipe, default_sampling(pipe, 64, seed=5000))
    noises = {
        name: noise(calls, result)
        for name, result in (
            ("fresh", fresh),
            ("refit", refit),
            ("base", mz.apply(pipe, read_plan(folder))),
        )
    }
    return {
        "fine_tune": "emoji-turbo" if distilled else f"{base}, LoRA merged",
        "base": base,
        "bits": bits,
        "exchanges": options.exchanges,
        "noise": noises,
        "sqnr_db": {name: decibels(each) for name, each in noises.items()},
        "noise_ratio": noises["refit"] / noises["fresh"],
        "processor_seconds": {"fresh": between - started, "refit": ended - between},
        "refit": refit.plan.context["refit"],
        "fresh": {name: fresh.plan.context[name] for name in ("probes", "measured_formats")},
        "torch": torch.__version__,
        "measured_on": describe("cpu", torch.get_num_threads())["name"],
    }


@torch.no_grad()
def noise(calls: Sequence[mz.Call], result: mz.Result) -> float:
    """Noise of a result on calls of the original."""
    noises = [relative_noise(c.output, c.run(result.denoiser)).mean() for c in calls]
    return statistics.fmean(map(float, noises))


def with_merged_lora(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """A copy whose attention projections have moved by random matrices of low rank."""
    component, denoiser = find_denoiser(pipe)
    tuned, generator = copy.deepcopy(denoiser), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, layer in tuned.named_modules():
            if not isinstance(layer, nn.Linear) or "attn" not in name:
                continue
            rows, columns = layer.weight.shape
            up = torch.randn(rows, RANK, generator=generator)
            moved = up @ torch.randn(RANK, columns, generator=generator)
            layer.weight += SHARE * layer.weight.norm() / moved.norm() * moved
    found = copy.copy(pipe)
    setattr(found, component, tuned)
    return found


def markdown(rows: list[Row]) -> str:
    lines = [
        "| fine-tune | base | bits | SQNR, fresh / refit / the base's plan (dB) "
        "| noise, refit over fresh | probes, fresh / refit | processor seconds, fresh / refit "
        "| less by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        db, seconds = one["sqnr_db"], one["processor_seconds"]
        lines.append(
            f"| {one['fine_tune']} | {one['base']} | {one['bits']:g} "
            f"| {db['fresh']:.2f} / {db['refit']:.2f} / {db['base']:.2f} "
            f"| {one['noise_ratio']:.3f} | {one['fresh']['probes']} / {one['refit']['probes']} "
            f"| {seconds['fresh']:.0f} / {seconds['refit']:.0f} "
            f"| {seconds['fresh'] / seconds['refit']:.1f}x |"
        )
    lines += [
        "",
        "Noise of the denoiser's output on 64 prompts and seeds that neither plan was found on. "
        "Processor time of `quantize` as a whole: recording, calibration and packing included. "
        f"LoRA: rank {RANK}, random, {SHARE:g} of each attention weight's norm. "
        + (
            "Exchanges are probed again by fresh plans alone."
            if all(one["exchanges"] for one in rows)
            else "No exchanges, which a fresh plan would probe as often again."
        ),
        "",
        *(f"Measured on {on}." for on in dict.fromkeys(one["measured_on"] for one in rows)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
