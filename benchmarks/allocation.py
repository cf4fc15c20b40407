"""Our plan against uniform allocation of the same stored bytes, on the embedded models.

For each model and average width: a uniform plan, and the plan of the `auto` recipe under exactly
the uniform plan's bytes. Prints a Markdown table and writes it with all figures, intervals and
context to benchmarks/results/.

    python benchmarks/allocation.py [--models emoji-turbo emoji-dit] [--images 2048]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, Evaluation, contrastive_for, evaluate
from mezzotint.models import find_denoiser
from mezzotint.plan import Choice, Plan
from mezzotint.recipes.prompts import default_sampling
from mezzotint.runtime import module_bytes

#: Uniform weight format per nominal width. Half a bit comes as one scale per 32 weights.
UNIFORM = {4.0: "int4/channel", 3.5: "int3/group32", 3.0: "int3/channel"}
ACTIVATION = "int8/token"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["emoji-turbo", "emoji-dit"])
    parser.add_argument("-n", "--images", type=int, default=2048)
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="measurement journals")
    arguments = parser.parse_args()
    path = RESULTS / "allocation.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for model in arguments.models:
        rows = [row for row in rows if row["model"] != model]
        for one in compare(model, arguments.images, arguments.cache):
            rows.append(one)
            write_json(path, rows)
            (RESULTS / "allocation.md").write_text(markdown(rows), "utf-8")
    print(markdown(rows))


def compare(model: str, images: int, cache: Path) -> Iterator[dict[str, Any]]:
    """A row per plan, each as soon as it is there."""
    pipe = mz.load(model)
    denoiser = find_denoiser(pipe)[1]
    sampling = default_sampling(pipe, images, seed=1000)
    sampling = mz.Sampling(prompts=sampling.prompts, seed=sampling.seed, batch=32)
    baseline = Baseline.of(pipe, sampling, contrastive_for(pipe))
    for bits, weight in UNIFORM.items():
        names = mz.uniform_plan(denoiser, weight_bits=4).choices
        uniform = mz.apply(pipe, Plan({name: Choice(weight, ACTIVATION) for name in names}))
        budget = mz.Budget(size=module_bytes(uniform.denoiser), act_bits=8)
        ours = mz.quantize(pipe, budget=budget, journal=cache / f"{model}.journal.jsonl")
        for label, result in ((f"uniform {weight}", uniform), ("mezzotint auto", ours)):
            found = row(model, bits, label, evaluate(baseline, result.pipeline))
            print(model, bits, label, found["sqnr_db"], found["fd_lite0"], flush=True)
            yield found


def row(model: str, bits: float, label: str, evaluation: Evaluation) -> dict[str, Any]:
    return {"model": model, "bits": bits, "plan": label} | evaluation.to_dict()


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | bits | plan | stored bytes | of fp16 | SQNR of ε (dB) | PSNR (dB) | FD-Lite0 "
        "| R-precision | of the original |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        psnr, own, original = one["psnr_db"], one["r_precision"], one["reference_r_precision"]
        lines.append(
            f"| {one['model']} | {one['bits']:g} | {one['plan']} | {one['denoiser_bytes']:,} "
            f"| {one['of_fp16']:.3f} | {one['sqnr_db']:.2f} "
            f"| {psnr['value']:.2f} [{psnr['low']:.2f}, {psnr['high']:.2f}] "
            f"| {one['fd_lite0']:.3f} | {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}] "
            f"| {original['value']:.3f} |"
        )
    context = rows[0]["context"]
    lines += [
        "",
        f"{context['images']} images per row, seeds {context['seed']} and following, each model at "
        f"its default steps; activations {ACTIVATION}; torch {context['torch']}, "
        f"{context['device']}, {context['dtype']} between layers. Our plan's budget is the uniform "
        "plan's stored bytes. FD-Lite0 is measured against the original's images of the same "
        "prompts and seeds; intervals are 95% bootstrap.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
