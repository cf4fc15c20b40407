"""Quality at equal bytes: every peer's best 8-, 4-, 3- and 2-bit weights against our plan.

For each setting of a peer, the images and denoiser outputs of its own quantized model, run in its
own environment (made on first use), and those of our plan of the same stored bytes. Finished rows
are kept: run it again to go on.

    python benchmarks/peers.py [--models emoji-turbo emoji-dit] [--peers sdnq nncf]
                               [--settings W4A16] [--images 2048] [--threads 2]

docs/benchmarks.md says what the columns are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from contestants import hardware
from contestants.peers_table import markdown
from contestants.quality_comparison import QualityComparison, Row
from contestants.quality_contestants import PEERS, SETTINGS
from contestants.weights_digest import weights_of

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, contrastive_for
from mezzotint.recipes.default_prompts import default_sampling

RESULTS = Path(__file__).parent / "results"
MODELS = ("emoji-turbo", "emoji-dit")


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    path = arguments.results
    rows: list[Row] = json.loads(path.read_text("utf-8")) if path.exists() else []
    for model in arguments.models:
        pipe = mz.load(model)
        run = {"weights": weights_of(pipe), "images": arguments.images, "seed": 1000}
        # Rows of other weights or another number of images do not belong into one table.
        rows = [row for row in rows if row["model"] != model or of_run(row, run)]
        done = set() if arguments.fresh else {place(row) for row in rows}
        todo = [
            (peer, setting) for setting in arguments.settings for peer in arguments.peers
            if (model, setting, peer) not in done
        ]  # fmt: skip
        if not todo:
            continue
        comparison = compared(model, pipe, arguments)
        context = run | {"machine": hardware.describe("cpu", arguments.threads)["name"]}
        for peer, setting in todo:
            row = comparison.row(peer, setting) | {"context": context}
            rows = ordered([one for one in rows if place(one) != place(row)] + [row])
            write_json(path, rows)
            path.with_suffix(".md").write_text(markdown(rows), "utf-8")
            print(shown(row), flush=True)
    print(markdown(rows))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=MODELS)
    add("--peers", nargs="+", choices=PEERS, default=PEERS)
    add("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    add("-n", "--images", type=int, default=2048)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--timeout", type=float, default=7200, help="seconds that one step may take")
    add("--fresh", action="store_true", help="measure finished rows again")
    add("--cache", type=Path, default=Path(".cache"), help="environments, journals, logs")
    add("--results", type=Path, default=RESULTS / "peers.json")
    return parser.parse_args()


def compared(model: str, pipe: Any, arguments: argparse.Namespace) -> QualityComparison:
    """The original's images and calls; the latter also in a file for the peers' processes."""
    sampling = default_sampling(pipe, arguments.images, seed=1000)
    sampling = mz.Sampling(prompts=sampling.prompts, seed=sampling.seed, batch=64)
    baseline = Baseline.of(pipe, sampling, contrastive_for(pipe))
    calls = arguments.cache / "calls" / f"{model}-{arguments.images}.pt"
    calls.parent.mkdir(parents=True, exist_ok=True)
    saved = [{"args": call.args, "kwargs": dict(call.kwargs)} for call in baseline.calls]
    torch.save(saved, calls)
    return QualityComparison(
        model, baseline, calls, arguments.cache, arguments.threads, arguments.timeout
    )


def of_run(row: Row, run: dict[str, Any]) -> bool:
    return all(row["context"][key] == value for key, value in run.items())


def place(row: Row) -> tuple[str, str, str]:
    return row["model"], row["setting"], row["peer"]


def ordered(rows: list[Row]) -> list[Row]:
    return sorted(
        rows,
        key=lambda row: (
            MODELS.index(row["model"]), SETTINGS.index(row["setting"]), PEERS.index(row["peer"])
        ),
    )  # fmt: skip


def shown(row: Row) -> str:
    head = f"{row['model']} {row['setting']} {row['peer']}"
    if "reason" in row:
        return f"{head}: {row['reason']}"
    less = row["difference"]["sqnr_db"]
    return f"{head} ({row['label']}): ours {less['value']:+.2f} dB SQNR"


if __name__ == "__main__":
    main()
