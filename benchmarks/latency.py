"""Agreement of a plan's predicted latency with the time of its packed denoiser.

For each embedded model: a profile, then plans at several latencies between the fastest plan and
what quality alone would choose, once with free bits and once at an average. All packed denoisers
and the floating one are then timed on one call, in turns. Measurements are kept under --cache: run
it again to go on. Prints a Markdown table and writes it with all figures to benchmarks/results/.

    python benchmarks/latency.py [--models emoji-turbo emoji-dit] [--bits none 4] [--targets 4]
                                 [--repeats 21] [--batch 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.models import find_denoiser, record_calls
from mezzotint.plan import Structure
from mezzotint.profiling import (
    Machine,
    Profile,
    Work,
    candidates,
    interleaved_medians,
    plan_latency,
    profile_pipeline,
)
from mezzotint.recipes import Job, Study
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.runtime import module_bytes

RESULTS = Path(__file__).parent / "results"
UNLIMITED = "1000x"
NO_NOISE = 300.0
"""Decibels of a plan that changes nothing."""


@dataclass(frozen=True)
class Setting:
    """Settings that all plans of a model share."""

    model: str
    formats: tuple[str, ...]
    prompts: int
    batch: int
    cache: Path

    @property
    def profile(self) -> Path:
        return self.cache / f"{self.model}.{Machine.here().key}.profile.json"

    def quantize(self, latency: str, bits: float | None) -> mz.Result:
        pipe = mz.load(self.model)
        return mz.quantize(
            pipe,
            mz.Auto(formats=self.formats, profile=str(self.profile)),
            mz.Budget(weight_bits=bits, latency=latency),
            sampling=default_sampling(pipe, self.prompts),
            journal=self.cache / f"{self.model}.{self.prompts}.journal.jsonl",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji-turbo", "emoji-dit"])
    parser.add_argument("--bits", nargs="+", default=["none", "4"], help="averages, or none")
    parser.add_argument("--formats", nargs="+", default=list(mz.Auto().formats))
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--cache", type=Path, default=Path(".cache/latency"))
    given = parser.parse_args()
    bits = [None if each == "none" else float(each) for each in given.bits]
    rows: list[dict[str, Any]] = []
    for model in given.models:
        setting = Setting(model, tuple(given.formats), given.prompts, given.batch, given.cache)
        rows += rows_of(setting, bits, given.targets, given.repeats)
    result = {
        "rows": rows,
        "context": Machine.here().to_dict()
        | {
            "processors": os.cpu_count(),
            "load": os.getloadavg()[0],
            "repeats": given.repeats,
            "batch": given.batch,
        },
    }
    write_json(RESULTS / "latency.json", result)
    (RESULTS / "latency.md").write_text(markdown(result), "utf-8")
    print(markdown(result))


def structure_of(pipe: Any, setting: Setting) -> dict[str, tuple[Structure, ...]]:
    """The layers' structures, as the recipe will find them."""
    denoiser, sampling = find_denoiser(pipe)[1], default_sampling(pipe, setting.prompts)
    job = Job(denoiser, setting.model, mz.Budget(), pipe, sampling)
    return Study.of(job, bos=True, shortcuts="shortcuts").structures.by_layer


def rows_of(
    setting: Setting, bits: list[float | None], targets: int, repeats: int
) -> list[dict[str, Any]]:
    pipe = mz.load(setting.model)
    choices = candidates(setting.formats, ("float", "int8/token"))
    work = Work(setting.batch, structures=structure_of(pipe, setting))
    cache = setting.profile.with_suffix(".jsonl")
    profile = profile_pipeline(pipe, work, choices=choices, cache=cache)
    profile.save(setting.profile)
    plans = {
        f"{'free' if average is None else f'{average:g} bits'}, {latency}": (average, result)
        for average in bits
        for latency, result in plans_of(setting, profile, average, targets)
    }
    sampling = mz.Sampling(prompts=("owl",) * setting.batch, batch=setting.batch)
    (call,) = record_calls(pipe, sampling, limit=1)
    denoisers = {"float": find_denoiser(pipe)[1]}
    denoisers |= {name: result.denoiser for name, (_, result) in plans.items()}
    with torch.no_grad():
        timed = interleaved_medians(
            {name: functools.partial(call.run, each) for name, each in denoisers.items()},
            repeats=repeats,
        )
    rows = []
    for name, (average, result) in plans.items():
        found = plan_latency(result.plan)
        assert found is not None
        predicted = found.predicted_ms / found.float_ms
        row = {
            "model": setting.model,
            "weight_bits": average,
            "target": found.limit_ms / found.float_ms,
            "predicted": predicted,
            "measured": timed[name].ratio,
            "error": predicted / timed[name].ratio - 1,
            "sqnr_db": result.plan.context["predicted_sqnr_db"],
            "bytes": module_bytes(result.denoiser),
            "milliseconds": {
                "predicted": found.predicted_ms,
                "float_profiled": found.float_ms,
                "measured": {k: 1e3 * v for k, v in dataclasses.asdict(timed[name]).items()
                             if k != "ratio"},
                "float_measured": 1e3 * timed["float"].median,
            },
        }  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    return rows


def plans_of(
    setting: Setting, profile: Profile, average: float | None, targets: int
) -> list[tuple[str, mz.Result]]:
    """Latency → its plan, from what quality alone chooses to near the fastest figures there are."""
    best = setting.quantize(UNLIMITED, average)
    found = plan_latency(best.plan)
    assert found is not None
    slowest = found.predicted_ms / profile.milliseconds
    layers = profile.layers.values()
    quickest = profile.rest + sum(
        min(figure.milliseconds for figure in layer.figures.values()) for layer in layers
    )
    fastest = quickest / profile.milliseconds
    plans = [("unlimited", best)]
    for step in range(targets):
        latency = f"{slowest + (fastest - slowest) * (step + 1) / targets:.4f}x"
        try:
            plans.append((latency, setting.quantize(latency, average)))
        except mz.errors.InfeasibleBudgetError as refusal:
            print(f"{setting.model}, {average} bits: {refusal}", flush=True)
    return plans


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "| model | bits | asked | predicted | measured | error of the prediction "
        "| predicted SQNR (dB) | bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in result["rows"]:
        asked = "–" if one["target"] > 100 else f"{one['target']:.2f}x"
        bits = "free" if one["weight_bits"] is None else f"{one['weight_bits']:g}"
        sqnr = "∞" if one["sqnr_db"] >= NO_NOISE else f"{one['sqnr_db']:.1f}"
        lines.append(
            f"| {one['model']} | {bits} | {asked} | {one['predicted']:.3f}x "
            f"| {one['measured']:.3f}x | {one['error']:+.1%} | {sqnr} "
            f"| {one['bytes']:,} |"
        )
    context = result["context"]
    lines += [
        "",
        "Multiples of the floating denoiser's time for one call. Measured: the median over "
        f"{context['repeats']} rounds, all denoisers of a model in turns; batch "
        f"{context['batch']}; {context['processor']}, {context['threads']} threads of "
        f"{context['processors']} processors, torch {context['torch']}, load average "
        f"{context['load']:.1f} at the end.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
