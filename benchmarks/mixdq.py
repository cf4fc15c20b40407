"""Worth of each part of MixDQ on the embedded models, row by row.

Two tables. Parts, at 8-bit weights: naive per-tensor inputs, then the constant first token, then
split shortcuts, then protected inputs found by one metric, then by two. Below: uniform weights, one
metric, two metrics, and the joint program, at equal average bits; all rounded to nearest, as
published. Rounding: MixDQ as published, and the same with error feedback. Finished rows are kept:
run it again to go on.

    python benchmarks/mixdq.py [--tables parts rounding] [--models emoji-turbo emoji-dit]
                               [--images 2048] [--fresh]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, contrastive_for, evaluate
from mezzotint.plan import VERSION
from mezzotint.recipes import MixDQ
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.runtime import module_bytes

RESULTS = Path(__file__).parent / "results"
#: Table → name of its files in the results.
TABLES = {"parts": "mixdq", "rounding": "mixdq_rounding"}
MODELS = ("emoji-turbo", "emoji-dit")
PLAIN = {"bos": False, "shortcuts": "none"}
UNIFORM = {"protect": 0.0, "split": "none"}


@dataclass(frozen=True)
class Row:
    """One line of the table: a budget, and the recipe's options."""

    setting: str
    plan: str
    budget: mz.Budget
    options: dict[str, Any] = field(default_factory=dict)

    def recipe_options(self) -> MixDQ:
        """Nominal bits, as the paper counts them; rounded to nearest where nothing else is said."""
        return MixDQ(**({"counting": "nominal", "rounding": "nearest"} | self.options))


def one_width(bits: int) -> dict[str, Any]:
    return {"content_weight_bits": (bits,), "quality_weight_bits": (bits,)}


def rows(table: str) -> list[Row]:
    return parts() if table == "parts" else roundings()


def roundings() -> list[Row]:
    return [
        Row(setting, plan, mz.Budget(weight_bits=weights, act_bits=8), {"rounding": rounding})
        for setting, weights in (("W8A8", 8), ("W5A8", 5), ("W4A8", 4), ("W3.66A8", 3.66))
        for plan, rounding in (("nearest", "nearest"), ("error feedback", "feedback"))
    ]


def parts() -> list[Row]:
    w8a8 = mz.Budget(weight_bits=8, act_bits=8)
    found = [
        Row("W8A8", "naive", w8a8, PLAIN | UNIFORM),
        Row("W8A8", "+ constant first token", w8a8, {"shortcuts": "none"} | UNIFORM),
        Row("W8A8", "+ split shortcuts", w8a8, UNIFORM),
        Row("W8A8", "+ protected inputs, SQNR only", w8a8, {"metric": "sqnr"}),
        Row("W8A8", "+ protected inputs, decoupled", w8a8),
    ]
    for setting, weights, inputs in (
        ("W4A8", 4, 8), ("W5A8", 5, 8), ("W4A16", 4, 16), ("W3.66A8", 3.66, 8)
    ):  # fmt: skip
        budget = mz.Budget(weight_bits=weights, act_bits=inputs)
        if weights == int(weights):
            found.append(Row(setting, "uniform", budget, one_width(int(weights)) | UNIFORM))
        found += [
            Row(setting, "mixed, SQNR only", budget, {"metric": "sqnr"}),
            Row(setting, "mixed, decoupled, sweep", budget),
            Row(setting, "mixed, decoupled, joint", budget, {"split": "joint"}),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=tuple(TABLES))
    parser.add_argument("-n", "--images", type=int, default=2048)
    parser.add_argument("--settings", nargs="+", help="only these, such as W8A8")
    parser.add_argument("--fresh", action="store_true", help="measure finished rows again")
    parser.add_argument("--cache", type=Path, default=RESULTS / "measurements", help="journals")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    arguments = parser.parse_args()
    tables = [Table(name, arguments.results) for name in arguments.tables]
    for model in arguments.models:
        pipe = mz.load(model)
        run = {"weights": weights_of(pipe), "images": arguments.images}
        todo = [
            (table, row)
            for table in tables
            for row in table.unfinished(model, {} if arguments.fresh else run)
            if arguments.settings is None or row.setting in arguments.settings
        ]
        if not todo:
            continue
        sampling = default_sampling(pipe, arguments.images, seed=1000)
        sampling = mz.Sampling(prompts=sampling.prompts, seed=sampling.seed, batch=64)
        baseline = Baseline.of(pipe, sampling, contrastive_for(pipe))
        for table, row in todo:
            figures = compare(model, row, baseline, arguments.cache / run["weights"])
            table.keep(figures | {"weights": run["weights"]}, run)
            print(line(figures), flush=True)


@dataclass(frozen=True)
class Table:
    """Rows of one table that are finished, in a folder."""

    name: str
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"{TABLES[self.name]}.json"

    def unfinished(self, model: str, run: dict[str, Any]) -> list[Row]:
        """Rows of a model that are not there; without a run, all."""
        finished = {place(one) for one in self.saved() if run and of_run(one, run)}
        return [row for row in rows(self.name) if (model, row.setting, row.plan) not in finished]

    def saved(self) -> list[dict[str, Any]]:
        path = self.path
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
        return found

    def keep(self, row: dict[str, Any], run: dict[str, Any]) -> None:
        """Add or replace one row; what another model's run saved meanwhile stays."""
        done = [
            one for one in self.saved()
            if place(one) != place(row) and (one["model"] != row["model"] or of_run(one, run))
        ] + [row]  # fmt: skip
        order = [(each.setting, each.plan) for each in rows(self.name)]
        done.sort(key=lambda one: (MODELS.index(one["model"]), order.index(place(one)[1:])))
        write_json(self.path, done)
        self.path.with_suffix(".md").write_text(markdown(done), "utf-8")


def place(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["model"], one["setting"], one["plan"]


def of_run(one: dict[str, Any], run: dict[str, Any]) -> bool:
    return one["weights"] == run["weights"] and one["context"]["images"] == run["images"]


def quantize(pipe: Any, row: Row, cache: Path) -> mz.Result:
    options = row.recipe_options()
    # One journal per structure; budgets, divisions and roundings share it.
    name = f"{'bos' if options.bos else 'plain'}-{options.shortcuts}-{VERSION}.jsonl"
    return mz.quantize(pipe, options, row.budget, journal=cache / name)


def compare(model: str, row: Row, baseline: Baseline, cache: Path) -> dict[str, Any]:
    result = quantize(baseline.pipe, row, cache)
    evaluation = evaluate(baseline, result.pipeline)
    context = result.plan.context
    return {
        "model": model,
        "setting": row.setting,
        "plan": row.plan,
        "memory_bytes": module_bytes(result.denoiser),
        "decisions": {"weights": context["weights"], "inputs": context["inputs"]},
    } | evaluation.to_dict()


TITLES = (
    "model", "bits", "plan", "FD-Lite0", "R-precision", "change against the original",
    "PSNR (dB)", "SSIM", "stored bytes", "of fp16", "image MSE on the calibration prompts",
)  # fmt: skip


def line(one: dict[str, Any]) -> str:
    def spread(name: str, digits: int) -> str:
        found = one[name]
        return (
            f"{found['value']:.{digits}f} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
        )

    mse = one["decisions"]["weights"].get("image_mse")
    cells = (
        one["model"], one["setting"], one["plan"], f"{one['fd_lite0']:.3f}",
        f"{one['r_precision']['value']:.3f}", spread("r_precision_change", 3),
        spread("psnr_db", 2), spread("ssim", 4), f"{one['denoiser_bytes']:,}",
        f"{one['of_fp16']:.3f}", "" if mse is None else f"{mse:.2e}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def markdown(done: list[dict[str, Any]]) -> str:
    context = done[0]["context"]
    originals = {one["model"]: one["reference_r_precision"]["value"] for one in done}
    lines = [
        f"| {' | '.join(TITLES)} |",
        "|---" * len(TITLES) + "|",
        *map(line, done),
        "",
        f"{context['images']} images per row, seeds {context['seed']} and following, each model at "
        "its default steps; weights per output channel, inputs per tensor with static ranges; "
        "averages count nominal bits, as the paper does; stored bytes include scales, zero points "
        "and constants, and are what stays in memory. FD-Lite0, PSNR and SSIM are against the "
        "original's images of the same prompts and seeds; intervals are 95% bootstrap, that of "
        "the change of R-precision over image pairs. R-precision of the originals: "
        + ", ".join(f"{model} {value:.3f}" for model, value in originals.items())
        + f". torch {context['torch']}, {context['device']}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
