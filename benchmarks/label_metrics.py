"""Agreement of cheap labels with Fréchet distances: the same configurations, by each.

For each model the same configurations, drawn at random, are labelled by the metric that is compared
with (`fd`, of 1,000 images or more) and by the others. Rows: rank correlation, and the same given
stored bits, with bootstrap intervals; and stored bits alone.

Every label is kept as soon as it is there: run it again to go on. 40 configurations by `fd` take
about an hour of one core for each model.

    PYTHONPATH=. python benchmarks/label_metrics.py --labels FOLDER
        [--models emoji-turbo emoji-dit] [--metrics noise paired] [--against fd] [--count 40]
        [--images 1000]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from contestants.hardware import describe
from contestants.label_agreement import Row, markdown, of_bits, of_metrics
from diffusers import DiffusionPipeline

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.labels.header import BANK_FOLDER

MODELS = ("emoji-turbo", "emoji-dit")
RESULTS = Path(__file__).parent / "results"

BITS = "stored bits alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="a folder for all labels")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--metrics", nargs="+", default=("noise", "paired"))
    parser.add_argument("--against", default="fd")
    parser.add_argument("-n", "--count", type=int, default=40, help="configurations per model")
    parser.add_argument("--images", type=int, help="of --against; its own number by default")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing, and of the images")
    parser.add_argument("--results", type=Path, default=RESULTS / "label_metrics.json")
    arguments = parser.parse_args()
    path = arguments.results
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for model in arguments.models:
        # Finished labels are read, so rows of a model are made anew together.
        rows = [one for one in rows if one["model"] != model]
        for row in compared(model, arguments):
            rows.append(row)
            write_json(path, rows)
            path.with_suffix(".md").write_text(table(rows), "utf-8")
    print(table(rows))


def compared(model: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for stored bits, and one for each metric as soon as its labels are there."""
    pipe, folder = mz.load(model), arguments.labels / model
    reference = labels(pipe, folder, arguments.against, arguments, arguments.images)
    context = {
        "model": model,
        "against": arguments.against,
        "images": reference.context["images"] or "all",
        "weights": reference.context["weights"],
        "torch": reference.context["torch"],
        "measured_on": describe("cpu", torch.get_num_threads())["name"],
    }
    yield context | {"cells": [model, BITS]} | of_bits(reference)
    for metric in arguments.metrics:
        found = labels(pipe, folder, metric, arguments)
        yield context | {"cells": [model, metric]} | of_metrics(found, reference)


def labels(
    pipe: DiffusionPipeline, folder: Path, metric: str, arguments: argparse.Namespace,
    images: int | None = None,
) -> mz.Labels:  # fmt: skip
    """Labels of the same configurations by any metric; all share one bank."""
    own, banks = folder / metric.replace(":", "-"), sorted(folder.glob(f"*/{BANK_FOLDER}"))
    if banks and not (own / BANK_FOLDER).exists():
        own.mkdir(parents=True, exist_ok=True)
        (own / BANK_FOLDER).symlink_to(banks[0].resolve())
    options = mz.SampleOptions(
        count=arguments.count, metric=metric, images=images, seed=arguments.seed
    )
    return mz.sample_labels(pipe, own, options)


def table(rows: list[Row]) -> str:
    notes = [
        f"{one['model']}: against {one['against']} of {one['images']} images; {one['measured_on']}."
        for one in {one["model"]: one for one in rows}.values()
    ]
    brackets = "Brackets are 95% bootstrap intervals over configurations."
    return markdown(rows, ("model", "ordered by"), [*notes, "", brackets])


if __name__ == "__main__":
    main()
