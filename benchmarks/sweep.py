"""The curve between size and quality of the embedded models: one sweep each, measured once.

Writes benchmarks/results/sweep-MODEL.json and the pictures docs/images/sweep-MODEL.svg, which
docs/choosing.md shows. Journals are those of benchmarks/ladder.py: what either has measured serves
the other. Run it again to go on.

    python benchmarks/sweep.py [--models emoji-turbo emoji-dit] [--bits 2.5 3 3.5 4 5 6]
                               [--no-exchanges] [--cache .cache]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from contestants.hardware import describe
from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint._files import replacing, write_json
from mezzotint.report import sweep_picture

MODELS = ("emoji-turbo", "emoji-dit")
BITS = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--bits", nargs="+", type=float, default=BITS)
    parser.add_argument("--no-exchanges", dest="exchanges", action="store_false")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="measurement journals")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    for model in arguments.models:
        pipe = mz.load(model)
        found = mz.sweep(
            pipe,
            arguments.bits,
            mz.Auto(exchanges=arguments.exchanges),
            journal=arguments.cache / f"{model}.journal.jsonl",
        )
        context = {
            "exchanges": arguments.exchanges,
            "weights": weights_of(pipe),
            "torch": torch.__version__,
            "measured_on": describe("cpu", torch.get_num_threads())["name"],
        }
        write_json(arguments.results / f"sweep-{model}.json", found.to_dict() | context)
        with replacing(arguments.pictures / f"sweep-{model}.svg") as picture:
            picture.write_text(sweep_picture(found), "utf-8")
        for point in found.points:
            print(model, point.label, point.denoiser_bytes, point.measured_sqnr_db, flush=True)


if __name__ == "__main__":
    main()
