"""Do predictors know more of a configuration than its bits? All of them, on the same labels.

For each model and predictor, and for graph networks each rank loss: figures of the order that the
models of five folds give to labels that they had not seen, and how far they are above or below
those of the best baseline, fold by fold. Labels are made beforehand:

    mezzotint sample emoji-dit -n 300 --journal labels/emoji-dit

Finished rows are kept: run it again to go on.

    PYTHONPATH=. python benchmarks/predictors.py --labels FOLDER [--models emoji-turbo emoji-dit]
        [--losses spearman lambdarank both none] [--epochs 1000]

With `--transfer emoji-turbo emoji-dit` instead: what the labels of one teach of types of layers,
and how well that orders the labels of the other; and the other way round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from contestants.clock import Clock
from contestants.hardware import describe
from contestants.label_agreement import markdown as agreement_table
from contestants.transfer_rows import KINDS, NOTE, transferred

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.models import find_denoiser
from mezzotint.predictors import (
    FoldFigures,
    PredictorOptions,
    averages,
    differences,
    judged,
    predictor_named,
)
from mezzotint.predictors.options import RankLoss
from mezzotint.recipes import Job
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.recipes.labelled import LabelledModel
from mezzotint.recipes.qua2sedimo.method import prepared

MODELS = ("emoji-turbo", "emoji-dit")
NETWORKS = ("network", "residual")
BASELINES = ("bits", "error", "noise", "ridge-choices", "ridge-noises", "trees")
LOSSES = get_args(RankLoss)
RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="a folder of labels per model")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES)
    parser.add_argument("--epochs", type=int, default=PredictorOptions.epochs)
    parser.add_argument(
        "--transfer", nargs=2, metavar="MODEL", help="two models, each of which teaches the other"
    )
    parser.add_argument(
        "--results", type=Path, help="by default results/predictors.json, or results/transfer.json"
    )
    arguments = parser.parse_args()
    if arguments.transfer:
        transfer(arguments, arguments.results or RESULTS / "transfer.json")
        return
    path = arguments.results or RESULTS / "predictors.json"
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for model in arguments.models:
        labelled = labelled_with_noises(model, arguments.labels / model)
        same = context_of(labelled)
        rows = [one for one in rows if one["model"] != model or same.items() <= one.items()]
        for kind, options in asked(arguments):
            place = {"model": model, "predictor": kind, "options": options.to_dict()}
            if not any(place.items() <= one.items() for one in rows):
                rows.append(place | same | figures(labelled, kind, options))
                write_json(path, rows)
                path.with_suffix(".md").write_text(markdown(rows), "utf-8")
                print(model, name_of(rows[-1]), rows[-1]["seconds"], flush=True)
    print(markdown(rows))


def transfer(arguments: argparse.Namespace, path: Path) -> None:
    """A row for each direction and predictor; those that are there are kept."""
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    labelled = {
        model: labelled_with_noises(model, arguments.labels / model) for model in arguments.transfer
    }
    same = {model: context_of(each) for model, each in labelled.items()}
    options = PredictorOptions(epochs=arguments.epochs)
    for source, target in (arguments.transfer, arguments.transfer[::-1]):
        for kind in KINDS:
            place = {"cells": [source, target, kind], "labels": [same[source], same[target]]}
            place["options"] = options.to_dict()
            if any(place.items() <= one.items() for one in rows):
                continue
            found = transferred(labelled[source], labelled[target], kind, options)
            rows = [one for one in rows if one["cells"] != place["cells"]] + [place | found]
            write_json(path, rows)
            path.with_suffix(".md").write_text(transfer_table(rows), "utf-8")
    print(transfer_table(rows))


def transfer_table(rows: list[Row]) -> str:
    return agreement_table(rows, ("learned on", "orders the labels of", "predictor"), [NOTE])


def labelled_with_noises(model: str, folder: Path) -> LabelledModel:
    """The labels of a model, and what each choice alone adds to its output."""
    pipe = mz.load(model)
    sampling = default_sampling(pipe, 8, seed=0)
    job = Job(find_denoiser(pipe)[1], model, mz.Budget(weight_bits=4), pipe, sampling)
    with prepared(job, mz.Qua2SeDiMo(labels=str(folder), predictor="residual")) as method:
        return method.labelled


def context_of(labelled: LabelledModel) -> Row:
    """All that rows of one model must share."""
    header = labelled.labels.context
    return {
        "labels": len(labelled.dataset.values),
        "metric": header["metric"],
        "weights": header["weights"],
        "measured_on": describe("cpu", torch.get_num_threads())["name"],
    }


def asked(arguments: argparse.Namespace) -> Iterator[tuple[str, PredictorOptions]]:
    """Baselines first, then networks with each rank loss."""
    yield from ((kind, PredictorOptions()) for kind in BASELINES)
    for kind in NETWORKS:
        for loss in arguments.losses:
            yield kind, PredictorOptions(loss=loss, epochs=arguments.epochs)


def figures(labelled: LabelledModel, kind: str, options: PredictorOptions) -> Row:
    """Figures of each fold, and the processor seconds that fitting took."""
    clock = Clock()
    with clock.running():
        found = predictor_named(kind).fit(labelled.dataset, labelled.blocks, options)
    folds = [dataclasses.asdict(one) for one in judged(found.evidence)]
    return {"folds": folds, "seconds": round(clock.processor, 1)}


def name_of(row: Row) -> str:
    """The predictor, with its rank loss where it has one."""
    kind: str = row["predictor"]
    return f"{kind}, {row['options']['loss']}" if kind in NETWORKS else kind


def folds_of(row: Row) -> list[FoldFigures]:
    return [FoldFigures(**one) for one in row["folds"]]


def best_baseline(rows: list[Row], model: str) -> Row:
    """The baseline of the highest partial correlation; one that tells nothing apart has none."""
    found = [one for one in rows if one["model"] == model and one["predictor"] in BASELINES]
    return max(
        found, key=lambda one: np.nan_to_num(averages(folds_of(one))["partial"].value, nan=-2)
    )


HEAD = (
    "| model | predictor | Spearman ρ | partial ρ, given bits | NDCG@10 | regret "
    "| partial ρ over the best baseline's | processor seconds |",
    "|---|---|---|---|---|---|---|---|",
)


def markdown(rows: list[Row]) -> str:
    lines = [*HEAD, *(line(one, best_baseline(rows, one["model"])) for one in rows), ""]
    for model in dict.fromkeys(one["model"] for one in rows):
        one = next(row for row in rows if row["model"] == model)
        lines.append(f"{model}: {one['labels']} labels, {one['metric']}; {one['measured_on']}.")
    lines += [
        "",
        "Means over five folds of labels that the model of the fold had not seen; brackets are 95% "
        "intervals over folds. Regret: label of the predicted best within 0.05 bits less that of "
        "the true best, in the metric's units.",
    ]
    return "\n".join(lines) + "\n"


def line(one: Row, baseline: Row) -> str:
    own = folds_of(one)
    found = averages(own)
    above = differences(own, folds_of(baseline))["partial"]
    difference = (
        "" if one is baseline else f"{above.value:+.3f} [{above.low:+.3f}, {above.high:+.3f}]"
    )
    return (
        f"| {one['model']} | {name_of(one)} | {found['spearman'].value:.3f} "
        f"| {found['partial'].value:.3f} | {found['ndcg'].value:.3f} | {found['regret'].value:.3g} "
        f"| {difference} | {one['seconds']:g} |"
    )


if __name__ == "__main__":
    main()
