"""Qua²SeDiMo and what is built on it, against one method alone, auto and MixDQ, row by row.

Two tables: all plans at 3.4 to 4 stored bits, inputs floating, at 3.65 bits also 8 and 6 bits wide
(`main`); what the paper does not have (`beyond`). Labels are made beforehand:

    mezzotint sample emoji-dit -n 300 --journal labels/emoji-dit
    mezzotint sample emoji-dit -n 300 --journal labels/emoji-dit-bos --bos

Finished rows are kept, and fitted networks: run it again to go on.

    PYTHONPATH=. python benchmarks/qua2sedimo.py --labels FOLDER --corpus FOLDER
        [--models emoji-dit] [--tables main] [--bits 3.65] [--act-bits 16]
        [--rows "ours, six choices"] [--images 2048] [--epochs 1000]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants.hardware import describe
from contestants.image_figures import ImageFigures, real_features
from contestants.kept_rows import Found, Kept
from contestants.qua2sedimo_rows import (
    APART,
    AUTO,
    AUTO_BARE,
    AUTO_SIX,
    BEST_LABEL,
    BITS,
    FEWER,
    FLOAT,
    MIXDQ,
    MIXED,
    MODELS,
    NARROW_INPUTS,
    OURS,
    SEEDS,
    SIX,
    TABLES,
    Row,
    rows,
)
from contestants.qua2sedimo_table import markdown
from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint.errors import InfeasibleBudgetError
from mezzotint.labels.header import JOURNAL_FILE
from mezzotint.models import find_denoiser, inventory
from mezzotint.plan import activation_name
from mezzotint.recipes.labelled import labelled_model
from mezzotint.recipes.mpqdm.plan_bits import plan_bits
from mezzotint.runtime import Calibration

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="a folder of labels per model")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--bits", nargs="+", type=float, choices=BITS, default=BITS)
    parser.add_argument("--act-bits", nargs="+", type=int, choices=(16, *NARROW_INPUTS))
    parser.add_argument("--rows", nargs="+", help="only these, by name, such as auto")
    parser.add_argument("-n", "--images", type=int, help="in place of each row's own")
    parser.add_argument("--epochs", type=int, help="of training, in place of each row's own")
    parser.add_argument("--corpus", type=Path, help="real pictures, see tools/emoji/corpus.py")
    parser.add_argument("--fresh", action="store_true", help="make finished rows again")
    parser.add_argument("--cache", type=Path, default=Path(".cache/qua2sedimo"))
    parser.add_argument("--results", type=Path, default=RESULTS / "qua2sedimo.json")
    arguments = parser.parse_args()
    every = rows(images=arguments.images, epochs=arguments.epochs)
    kept = Kept(arguments.results, [row.place for row in every], markdown)
    real = None if arguments.corpus is None else real_features(arguments.corpus)
    for model in arguments.models:
        wanted = [row for row in every if row.model == model and asked_for(row, arguments)]
        bench = Bench(model, arguments.labels / model, arguments.cache, kept, real)
        kept.drop_others(model, bench.identity)
        for row in wanted:
            if arguments.fresh or not kept.has(row.place, row.images, row.asked):
                found = bench.measured(row)
                kept.add(found)
                print(row.place, found["fd_lite0"], flush=True)
    print(markdown(kept.rows))


def asked_for(row: Row, arguments: argparse.Namespace) -> bool:
    return (
        row.table in arguments.tables
        and (row.bits in arguments.bits or row.plan == FLOAT)
        and row.act_bits in (arguments.act_bits or [row.act_bits])
        and row.plan in (arguments.rows or [row.plan])
    )


class Bench:
    """One model with its labels, and everything that its rows share."""

    def __init__(
        self, model: str, labels: Path, cache: Path, kept: Kept, real: np.ndarray | None
    ) -> None:
        self.model, self.labels, self.kept = model, labels, kept
        self.pipe = mz.load(model)
        self.figures = ImageFigures(self.pipe, real)
        self.identity = weights_of(self.pipe)
        self.cache = cache / self.identity
        self.cache.mkdir(parents=True, exist_ok=True)
        self.labelled = labelled_model(labels)
        _, self.denoiser = find_denoiser(self.pipe)
        self.layers = [layer for layer in inventory(self.denoiser) if layer.supported]

    def measured(self, row: Row) -> Found:
        """The row's figures, and all that says what they are of."""
        head = {
            "model": row.model,
            "table": row.table,
            "setting": row.setting,
            "plan": row.plan,
            "asked": row.asked,
            "weights": self.identity,
            "measured_on": describe("cpu", torch.get_num_threads())["name"],
        }
        if row.plan == FLOAT:
            found = self.figures.of(self.pipe, row.images)
            return head | found | {"stored_bits": 32.0}
        try:
            return head | averaged([self._figures(row, each) for each in self.results(row)])
        except InfeasibleBudgetError as cause:
            none = {"fd_lite0": None, "context": {"images": row.images}}
            return head | none | {"why": str(cause)}

    def _figures(self, row: Row, result: mz.Result) -> Found:
        context = {
            name: value
            for name, value in result.plan.context.items()
            if name not in ("sampling", "budget")
        }
        bits = plan_bits(self.denoiser, self.layers, result.plan.choices, ())
        return self.figures.of(result.pipeline, row.images) | {
            "stored_bits": bits.stored,
            "recipe": context,
        }

    def results(self, row: Row) -> Iterator[mz.Result]:
        """The quantized models of a row: one, or one for each seed."""
        budget = mz.Budget(weight_bits=row.bits, act_bits=row.act_bits)
        if row.plan in MIXED:
            for seed in range(SEEDS):
                yield self.packed(row, self.mixed(row, seed))
        elif row.plan == BEST_LABEL:
            best = self.labelled.best_within(int(row.bits * self.labelled.space.sizes.sum() / 8))
            if best is None:
                raise InfeasibleBudgetError("no label is within the budget")
            yield self.packed(row, best)
        elif row.plan in (AUTO, AUTO_BARE, AUTO_SIX, MIXDQ):
            yield self.quantized(row, _others(row), self.bytes_of_ours(row))
        else:
            recipe = row.recipe(str(self.labels_of(row)), str(self.cache / f"fitted-{row.epochs}"))
            yield self.quantized(row, recipe, budget)

    def quantized(self, row: Row, recipe: Any, budget: mz.Budget) -> mz.Result:
        """The result of a recipe; rows that record the same calls share a journal."""
        kind = type(recipe).__name__
        if kind == "Qua2SeDiMo" and recipe.formats == "all":
            kind = "Auto"
        if row.plan == AUTO_BARE:
            kind = "Auto-bare"  # other structures are other measurements
        journal = self.cache / f"{kind.lower()}.journal.jsonl"
        return mz.quantize(self.pipe, recipe, budget, journal=journal)

    def packed(self, row: Row, configuration: np.ndarray) -> mz.Result:
        """A configuration of the bank, packed."""
        bank = self.labelled.bank
        named = self.labelled.space.named(configuration)
        plan = bank.plan(named, activation=activation_name(row.act_bits))
        return mz.apply(self.pipe, plan, Calibration(encoded=bank))

    def mixed(self, row: Row, seed: int) -> np.ndarray:
        """One method alone: layers in random order take the wider format while bytes last."""
        space = self.labelled.space
        few, more = (space.formats.index(name) for name in MIXED[row.plan])
        most = int(row.bits * space.sizes.sum() / 8)
        found = np.full(len(space.keys), few)
        if space.stored(found) > most:
            raise InfeasibleBudgetError(f"{row.plan}: codebooks alone exceed {row.bits} bits")
        for place in np.random.default_rng(seed).permutation(len(space.keys)):
            wider = found.copy()
            wider[place] = more
            if space.stored(wider) <= most:
                found = wider
        return found

    def labels_of(self, row: Row) -> Path:
        """The folder of the labels, or another: a copy with the first of them alone."""
        if row.plan in APART:
            return self.labels.with_name(f"{self.model}-bos")
        if f"{FEWER} labels" not in row.plan:
            return self.labels
        folder = self.cache / f"{FEWER}-labels"
        if not folder.is_dir():
            shutil.copytree(self.labels, folder)
            lines = (self.labels / JOURNAL_FILE).read_text("utf-8").splitlines(keepends=True)
            # The header, the floating model, and the labels.
            (folder / JOURNAL_FILE).write_text("".join(lines[: FEWER + 2]), "utf-8")
        return folder

    def bytes_of_ours(self, row: Row) -> mz.Budget:
        """The stored bytes of ours with six choices, in the same setting."""
        found = self.kept.at((row.model, row.table, row.setting, OURS))
        if found is None or found["fd_lite0"] is None:
            raise SystemExit(f"{row.plan}: has the bytes of the row {OURS!r}; make that first")
        return mz.Budget(size=int(found["denoiser_bytes"]), act_bits=row.act_bits)


def _others(row: Row) -> Any:
    """Recipes without labels."""
    if row.plan == MIXDQ:
        return mz.MixDQ(split="joint")
    if row.plan == AUTO_BARE:  # as labelled: no constant tokens, no corrected biases
        plain = {"bos": False, "shortcuts": "none", "bias_correction": "never"}
        return mz.Auto(formats=SIX, rounding="nearest", **plain)
    return mz.Auto(formats=SIX, rounding="nearest") if row.plan == AUTO_SIX else mz.Auto()


def averaged(found: list[Found]) -> Found:
    """The mean of every figure of several runs; all else is that of the first."""
    return {name: _mean([one[name] for one in found]) for name in found[0]}


def _mean(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {name: _mean([each[name] for each in values]) for name in first}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return type(first)(np.mean(values)) if len(values) > 1 else first
    return first


if __name__ == "__main__":
    main()
