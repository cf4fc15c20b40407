"""Allocation alone against uniform plans of the same stored bytes, on the embedded models.

For each model and average width: a uniform plan, the same plan with the constant first token of
the text kept out of the quantizers, and the plan of the `auto` recipe under exactly the uniform
plan's bytes, without what else the recipe has: integers per channel, scales in float32, nearest
rounding, every input in 8 bits. `ladder.py` adds the other parts one by one.
Prints a Markdown table and writes it with all figures, intervals and context to
benchmarks/results/. Finished rows are kept: run it again to go on.

    python benchmarks/allocation.py [--models emoji-turbo emoji-dit] [--images 2048]
                                    [--bits 4 3] [--plans uniform]
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from contestants.hardware import describe
from contestants.uniform_plans import ACTIVATION, uniform, with_constant_tokens
from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, contrastive_for, evaluate
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.runtime import module_bytes

#: Uniform weight format per nominal width. Half a bit comes as one scale per 32 weights.
UNIFORM = {
    4.0: "int4/channel/float32",
    3.5: "int3/group32",
    3.0: "int3/channel/float32",
}
RESULTS = Path(__file__).parent / "results"
MODELS = ("emoji-turbo", "emoji-dit")
CONSTANT = "uniform, constant first token"
OURS = "mezzotint auto"
#: Allocation alone, by measuring every format of every layer.
ALLOCATION = mz.Auto(
    formats=tuple(f"int{bits}/channel/float32" for bits in (2, 3, 4, 5, 6, 8)),
    rounding="nearest",
    inputs=("int8/token",),
    act_share=1.0,
    bias_correction="never",
    exchanges=False,
    sensitivity="measured",
    calls=None,
)
PLANS = ("uniform", CONSTANT, OURS)
NOT_RECORDED = "another processor, whose name was not recorded"

Row = dict[str, Any]
Place = tuple[str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--bits", nargs="+", type=float, choices=UNIFORM, default=list(UNIFORM))
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=PLANS)
    parser.add_argument("-n", "--images", type=int, default=2048)
    parser.add_argument("--fresh", action="store_true", help="measure finished rows again")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="measurement journals")
    parser.add_argument("--results", type=Path, default=RESULTS / "allocation.json")
    arguments = parser.parse_args()
    path = arguments.results
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for model in arguments.models:
        pipe = mz.load(model)
        run = {"weights": weights_of(pipe)}
        # Rows of other weights or another number of images do not belong into one table.
        rows = [one for one in rows if one["model"] != model or of_run(one, run, arguments.images)]
        done = set() if arguments.fresh else {place(one) for one in rows}
        places = itertools.product([model], arguments.bits, arguments.plans)
        wanted = [each for each in places if each not in done]
        for found in compare(pipe, wanted, arguments) if wanted else ():
            row = found | run | {"measured_on": describe("cpu", torch.get_num_threads())["name"]}
            rows = ordered([one for one in rows if place(one) != place(row)] + [row])
            write_json(path, rows)
            path.with_suffix(".md").write_text(markdown(rows), "utf-8")
            print(*place(row), row["sqnr_db"], row["fd_lite0"], flush=True)
    print(markdown(rows))


def of_run(row: Row, run: Row, images: int) -> bool:
    return row["weights"] == run["weights"] and row["context"]["images"] == images


def place(row: Row) -> Place:
    return row["model"], row["bits"], row["plan"]


def ordered(rows: list[Row]) -> list[Row]:
    order = list(itertools.product(MODELS, UNIFORM, PLANS))
    return sorted(rows, key=lambda row: order.index(place(row)))


def compare(pipe: Any, wanted: list[Place], arguments: argparse.Namespace) -> Iterator[Row]:
    """A row per plan, each as soon as it is there."""
    sampling = default_sampling(pipe, arguments.images, seed=1000)
    sampling = mz.Sampling(prompts=sampling.prompts, seed=sampling.seed, batch=32)
    baseline = Baseline.of(pipe, sampling, contrastive_for(pipe))
    for model, bits, plan in wanted:
        result = mz.apply(pipe, uniform(pipe, UNIFORM[bits]))
        if plan == CONSTANT:
            result = mz.apply(pipe, with_constant_tokens(pipe, result.plan))
        elif plan == OURS:
            budget = mz.Budget(size=module_bytes(result.denoiser), act_bits=8)
            journal = arguments.cache / f"{model}.journal.jsonl"
            result = mz.quantize(
                pipe, ALLOCATION, budget, sampling=default_sampling(pipe), journal=journal
            )
        evaluation = evaluate(baseline, result.pipeline)
        yield {"model": model, "bits": bits, "plan": plan} | evaluation.to_dict()


def shown(row: Row) -> str:
    return str(row["plan"]).replace("uniform", f"uniform {UNIFORM[row['bits']]}")


def markdown(rows: list[Row]) -> str:
    lines = [
        "| model | bits | plan | stored bytes | of fp16 | SQNR of ε (dB) | PSNR (dB) | FD-Lite0 "
        "| R-precision | of the original |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        psnr, own, original = one["psnr_db"], one["r_precision"], one["reference_r_precision"]
        lines.append(
            f"| {one['model']} | {one['bits']:g} | {shown(one)} | {one['denoiser_bytes']:,} "
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
        "plan's stored bytes; the constant first tokens are stored beside them. FD-Lite0 is "
        "measured against the original's images of the same "
        "prompts and seeds; intervals are 95% bootstrap.",
        *processors(rows),
    ]
    return "\n".join(lines) + "\n"


def processors(rows: list[Row]) -> list[str]:
    """A sentence for each machine of the rows; figures of two machines differ by rounding."""
    plans: dict[str, dict[str, None]] = {}
    for row in rows:
        plans.setdefault(row.get("measured_on", NOT_RECORDED), {})[row["plan"]] = None
    return ["", *(f"Measured on {on}: {'; '.join(names)}." for on, names in plans.items())]


if __name__ == "__main__":
    main()
