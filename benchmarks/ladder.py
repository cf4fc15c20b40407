"""Each part of the default recipe, at equal bytes, on the embedded models.

Two tables. The ladder begins with a uniform plan and adds one part after the other, each rung
within the stored bytes of the first but for the constant tokens; so everyone sees what each part is
worth. The widths compare the default recipe with one that only allocates, which measures every
layer, rounds to nearest and quantizes every input: at 2.3 to 4 stored bits, inputs floating or not.
Prints both as Markdown and writes them with all figures, intervals and context to
benchmarks/results/. Finished rows are kept: run it again to go on.

    python benchmarks/ladder.py [--models emoji-turbo emoji-dit] [--images 2048]
                                [--tables ladder widths] [--bits 4 3] [--plans uniform auto]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestants.hardware import describe
from contestants.uniform_plans import uniform, with_constant_tokens
from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, contrastive_for, evaluate
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.runtime import module_bytes

MODELS = ("emoji-turbo", "emoji-dit")
TABLES = ("ladder", "widths")
RESULTS = Path(__file__).parent / "results"

INTEGERS = tuple(f"int{bits}/channel" for bits in (2, 3, 4, 5, 6, 8))
#: Allocation alone: nearest rounding, every input in 8 bits.
ALLOCATION = mz.Auto(
    formats=INTEGERS,
    rounding="nearest",
    inputs=("int8/token",),
    act_share=1.0,
    bias_correction="never",
    exchanges=False,
    smoothing=False,
)
FEEDBACK = dataclasses.replace(ALLOCATION, rounding="feedback")
LUT = dataclasses.replace(FEEDBACK, formats=mz.Auto.formats)
INPUTS = dataclasses.replace(LUT, inputs=None, act_share=None)
SMOOTHED = dataclasses.replace(INPUTS, smoothing=True)
CORRECTED = dataclasses.replace(SMOOTHED, bias_correction="tried")
#: The same with scales in float32, every format of every layer measured, on 8 prompts: what this
#: recipe did before it had the other parts.
BEFORE = dataclasses.replace(
    ALLOCATION,
    formats=tuple(f"{name}/float32" for name in INTEGERS),
    sensitivity="measured",
    calibration_prompts=8,
)

UNIFORM, CONSTANT = "uniform", "+ constant first token"
RUNGS: dict[str, mz.Auto | None] = {
    UNIFORM: None,
    CONSTANT: None,
    "+ allocation": ALLOCATION,
    "+ error feedback": FEEDBACK,
    "+ lut formats": LUT,
    "+ inputs in the program": INPUTS,
    "+ smoothing": SMOOTHED,
    "+ bias correction": CORRECTED,
    "+ exchanges (auto)": mz.Auto(),
}
PLANS = {"allocation alone": BEFORE, "auto": mz.Auto()}
LADDER_BITS = (4.0, 3.0)
WIDTHS = (4.0, 3.5, 3.0, 2.6, 2.3)

Row = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a row stands, in the order of the tables."""

    model: str
    table: str
    act_bits: int
    bits: float
    plan: str

    @classmethod
    def of(cls, row: Row) -> Place:
        return cls(*(row[field.name] for field in dataclasses.fields(cls)))


def places() -> list[Place]:
    found = []
    for model in MODELS:
        found += [
            Place(model, "ladder", 8, bits, plan)
            for bits, plan in itertools.product(LADDER_BITS, RUNGS)
        ]
        found += [
            Place(model, "widths", act_bits, bits, plan)
            for act_bits, bits, plan in itertools.product((16, 8), WIDTHS, PLANS)
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--bits", nargs="+", type=float, choices=WIDTHS, default=WIDTHS)
    parser.add_argument("--plans", nargs="+", choices=(*RUNGS, *PLANS), default=(*RUNGS, *PLANS))
    parser.add_argument("-n", "--images", type=int, default=2048)
    parser.add_argument("--fresh", action="store_true", help="measure finished rows again")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="measurement journals")
    parser.add_argument("--results", type=Path, default=RESULTS / "ladder.json")
    arguments = parser.parse_args()
    path = arguments.results
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    order = places()
    for model in arguments.models:
        pipe = mz.load(model)
        run = {"weights": weights_of(pipe)}
        # Rows of other weights or another number of images do not belong into one table.
        rows = [one for one in rows if one["model"] != model or of_run(one, run, arguments.images)]
        done = set() if arguments.fresh else {Place.of(one) for one in rows}
        wanted = [
            each
            for each in order
            if each.model == model
            and each.table in arguments.tables
            and each.bits in arguments.bits
            and each.plan in arguments.plans
            and each not in done
        ]
        for found in compare(pipe, wanted, arguments) if wanted else ():
            row = found | run | {"measured_on": describe("cpu", torch.get_num_threads())["name"]}
            place = Place.of(row)
            rows = [one for one in rows if Place.of(one) != place] + [row]
            rows.sort(key=lambda one: order.index(Place.of(one)))
            write_json(path, rows)
            path.with_suffix(".md").write_text(markdown(rows), "utf-8")
            print(place, row["sqnr_db"], row["fd_lite0"], flush=True)
    print(markdown(rows))


def of_run(row: Row, run: Row, images: int) -> bool:
    return row.get("weights") == run["weights"] and row["context"]["images"] == images


def compare(pipe: Any, wanted: list[Place], arguments: argparse.Namespace) -> Iterator[Row]:
    """A row per plan, each as soon as it is there."""
    sampling = default_sampling(pipe, arguments.images, seed=1000)
    sampling = mz.Sampling(prompts=sampling.prompts, seed=sampling.seed, batch=32)
    baseline = Baseline.of(pipe, sampling, contrastive_for(pipe))
    for place in wanted:
        result = quantized(pipe, place, arguments.cache)
        evaluation = evaluate(baseline, result.pipeline)
        yield (
            dataclasses.asdict(place)
            | evaluation.to_dict()
            | {
                "recipe": {
                    name: value
                    for name, value in result.plan.context.items()
                    if name not in ("sampling", "budget")
                }
            }
        )


def quantized(pipe: Any, place: Place, cache: Path) -> mz.Result:
    """The model of a row."""
    journal = cache / f"{place.model}.journal.jsonl"
    if place.table == "widths":
        budget = mz.Budget(weight_bits=place.bits, act_bits=place.act_bits)
        options = PLANS[place.plan]
        if options == BEFORE:  # of fewer prompts, whose calls are others
            journal = cache / f"{place.model}-before.journal.jsonl"
        if place.act_bits == 16:
            options = dataclasses.replace(options, inputs=None, act_share=None)
        return mz.quantize(pipe, options, budget, journal=journal)
    result = mz.apply(pipe, uniform(pipe, f"int{place.bits:g}/channel"))
    if place.plan == UNIFORM:
        return result
    if place.plan == CONSTANT:
        return mz.apply(pipe, with_constant_tokens(pipe, result.plan))
    budget = mz.Budget(size=module_bytes(result.denoiser), act_bits=8)
    options = RUNGS[place.plan]
    assert options is not None
    return mz.quantize(pipe, options, budget, journal=journal)


HEAD = (
    "| model | inputs | bits | plan | stored bytes | of fp16 | SQNR of ε (dB) | PSNR (dB) "
    "| FD-Lite0 | R-precision | of the original |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def markdown(rows: list[Row]) -> str:
    lines: list[str] = []
    for table in TABLES:
        lines += [*HEAD, *(line(one) for one in rows if one["table"] == table), ""]
    context = rows[0]["context"]
    lines += [
        f"{context['images']} images per row, seeds {context['seed']} and following, each model at "
        f"its default steps; A8: 8-bit inputs; torch {context['torch']}, {context['device']}, "
        f"{context['dtype']} between layers. The budget of a ladder's rungs is the uniform plan's "
        "stored bytes; the second rung stores the constant tokens beside them. FD-Lite0 is "
        "measured against the original's images of the same prompts and seeds; intervals are 95% "
        "bootstrap.",
        "",
        *(f"Measured on {on}." for on in dict.fromkeys(row["measured_on"] for row in rows)),
    ]
    return "\n".join(lines) + "\n"


def line(one: Row) -> str:
    psnr, own, original = one["psnr_db"], one["r_precision"], one["reference_r_precision"]
    return (
        f"| {one['model']} | A{one['act_bits']} | {one['bits']:g} | {one['plan']} "
        f"| {one['denoiser_bytes']:,} | {one['of_fp16']:.3f} | {one['sqnr_db']:.2f} "
        f"| {psnr['value']:.2f} [{psnr['low']:.2f}, {psnr['high']:.2f}] "
        f"| {one['fd_lite0']:.3f} | {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}] "
        f"| {original['value']:.3f} |"
    )


if __name__ == "__main__":
    main()
