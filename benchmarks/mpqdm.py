"""MPQ-DM part by part, against its base EfficientDM, the recipe auto, and ours, row by row.

Tables: W2A4 and W3A6 in full on emoji-teacher (`main`); other widths there (`settings`); the other
embedded models (`models`); one switch of MPQ-DM at a time (`ablations`); what the paper does not
have (`beyond`). Trained rows have equal minutes. Rows come in the order of the tables, so that an
interrupted run leaves a valid one. Finished rows are kept, training goes on where it was killed:
run it again to go on. About nine hours on 2 cores in all.

    PYTHONPATH=. python benchmarks/mpqdm.py --corpus FOLDER
        [--models emoji-teacher] [--tables main] [--settings W2A4] [--rows MPQ-DM auto]
        [--minutes 10] [--images 2048]
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants.hardware import describe
from contestants.held_out_prompts import without_prompts
from contestants.image_figures import ImageFigures, real_features
from contestants.kept_rows import Kept
from contestants.mpqdm_rows import AUTO, FLOAT, IMAGES, MODELS, PUBLISHED, TABLES, TUNED, Row, rows
from contestants.mpqdm_table import markdown
from contestants.weights_digest import weights_of

import mezzotint as mz

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--settings", nargs="+", help="only these, such as W2A4")
    parser.add_argument("--rows", nargs="+", help="only these, by name, such as MPQ-DM")
    parser.add_argument("--minutes", type=float, help="of training, in place of each row's own")
    parser.add_argument("--steps", type=int, help="updates of training, in place of minutes")
    parser.add_argument("-n", "--images", type=int, help="in place of each row's own")
    parser.add_argument("--corpus", type=Path, help="real pictures, see tools/emoji/corpus.py")
    parser.add_argument("--fresh", action="store_true", help="make finished rows again")
    parser.add_argument("--cache", type=Path, default=Path(".cache/mpqdm"), help="work under way")
    parser.add_argument("--results", type=Path, default=RESULTS / "mpqdm.json")
    arguments = parser.parse_args()
    every = rows(minutes=arguments.minutes, images=arguments.images)
    kept = Kept(arguments.results, [row.place for row in every], markdown)
    real = None if arguments.corpus is None else real_features(arguments.corpus)
    for model in arguments.models:
        wanted = [row for row in every if row.model == model and asked_for(row, arguments)]
        # Never fewer: training on other prompts is another training, which is not gone on with.
        most = max(IMAGES, *(row.images for row in every))
        bench = Bench(model, arguments.steps, arguments.cache, kept, real, most)
        kept.drop_others(model, bench.identity)
        for row in wanted:
            if arguments.fresh or not kept.has(row.place, row.images, row.asked(arguments.steps)):
                found = bench.measured(row)
                kept.add(found)
                print(row.place, found["fd_lite0"], found["r_precision"]["value"], flush=True)
    print(markdown(kept.rows))


def asked_for(row: Row, arguments: argparse.Namespace) -> bool:
    return (
        row.table in arguments.tables
        and row.setting in (arguments.settings or [row.setting])
        and row.plan in (arguments.rows or [row.plan])
    )


class Bench:
    """One model, and everything that its rows share."""

    def __init__(
        self,
        model: str,
        steps: int | None,
        cache: Path,
        kept: Kept,
        real: np.ndarray | None,
        most: int,
    ) -> None:
        """Load the model, and again for calibration and training on other prompts.

        Args:
            model: embedded one.
            steps: updates of training, in place of minutes.
            cache: folder for work under way.
            kept: finished rows.
            real: features of real pictures.
            most: images of any row; their prompts are for evaluation alone.
        """
        self.model, self.steps, self.kept = model, steps, kept
        self.pipe = mz.load(model)
        self.figures = ImageFigures(self.pipe, real)
        self.identity = weights_of(self.pipe)
        self.cache = cache / self.identity
        evaluated = self.figures.sampling(most).prompts
        self.source = without_prompts(self.pipe, evaluated, self.cache / "held-out")

    def measured(self, row: Row) -> dict[str, Any]:
        """The row's figures, and all that says what they are of."""
        result = None if row.plan == FLOAT else self.result(row)
        pipe = self.pipe if result is None else result.pipeline
        return (
            {
                "model": row.model,
                "table": row.table,
                "setting": row.setting,
                "plan": row.plan,
                "asked": row.asked(self.steps),
                "weights": self.identity,
                "measured_on": describe("cpu", torch.get_num_threads())["name"],
            }
            | self.figures.of(pipe, row.images)
            | _training(result)
            | _plan(result)
        )

    def result(self, row: Row) -> mz.Result:
        """The quantized model of a row; training under way is gone on with."""
        # A row with other options is another training, whose state must not meet this one's.
        asked = json.dumps(row.asked(self.steps), sort_keys=True).encode()
        name = f"{row.slug}-{hashlib.sha256(asked).hexdigest()[:8]}"
        journal = self.cache / f"{name}.journal.jsonl"
        journal.parent.mkdir(parents=True, exist_ok=True)
        if row.plan == AUTO:
            return self.allocated(row)
        if row.plan == TUNED:
            return self.tuned(row, journal)
        budget = mz.Budget(weight_bits=row.weight_bits, act_bits=row.act_bits)
        if row.by_bytes:
            budget = mz.Budget(size=self.bytes_of_published(row), act_bits=row.act_bits)
        return mz.quantize(self.source, row.recipe(self.steps), budget, journal=journal)

    def tuned(self, row: Row, journal: Path) -> mz.Result:
        """The same plan as `allocated`, its scales, biases and norms trained."""
        plan = self.allocated(row).plan
        minutes = row.minutes if self.steps is None else None
        return mz.tune(self.source, plan, minutes=minutes, steps=self.steps, journal=journal)

    def allocated(self, row: Row) -> mz.Result:
        """The plan of `auto` in the stored bytes of MPQ-DM, every input as narrow."""
        budget = mz.Budget(size=self.bytes_of_published(row), act_bits=row.act_bits)
        options = mz.Auto(inputs=(f"int{row.act_bits}/token",), act_share=1.0)
        journal = self.cache / f"auto-{row.setting}.journal.jsonl"
        return mz.quantize(self.source, options, budget, journal=journal)

    def bytes_of_published(self, row: Row) -> int:
        """Stored bytes of MPQ-DM at the same model and widths, from its row."""
        for table in dict.fromkeys((row.table, *TABLES)):
            found = self.kept.at((row.model, table, row.setting, PUBLISHED))
            if found is not None:
                return int(found["denoiser_bytes"])
        raise SystemExit(f"{row.plan}: its bytes are those of the row {PUBLISHED}; make that first")


def _training(result: mz.Result | None) -> dict[str, Any]:
    """Updates and minutes that there were."""
    if result is None or result.training is None:
        return {"updates": 0, "minutes": 0.0}
    curve = result.training.to_dict()
    return {"updates": curve["updates"], "minutes": curve["minutes"], "curve": curve}


def _plan(result: mz.Result | None) -> dict[str, Any]:
    if result is None:
        return {"bits": None}
    return {
        "bits": result.plan.context.get("bits"),
        "exceptions": result.plan.context.get("exceptions"),
        "options": result.plan.context.get("options"),
    }


if __name__ == "__main__":
    main()
