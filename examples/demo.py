"""The main job, end to end, on an embedded model.

Measures every layer of `emoji-turbo`, spends a 4-bit budget, packs, saves, loads the result again
with stock diffusers in a new process, and compares it with the original and with uniform 4 bits.
Leaves in the output folder: the checkpoint, `report.html`, `grid.png` and `figures.json`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import mezzotint as mz
from mezzotint._files import write_json
from mezzotint.evaluation import Baseline, Evaluation, contrastive_for, evaluate
from mezzotint.models import Sampling, inventory
from mezzotint.recipes.default_prompts import default_sampling
from mezzotint.report import (
    Report,
    ReportedModel,
    layer_rows,
    picture_grid,
    save_picture,
    save_report,
)
from mezzotint.runtime import executions, module_bytes

SHOWN = (
    "owl, noto style", "red heart, flat style", "pizza, noto style", "grinning face, flat style",
    "rocket, noto style", "dog face, flat style", "automobile, noto style", "tulip, flat style",
)  # fmt: skip

FRESH_PROCESS = """
import sys
import numpy as np
import mezzotint  # registers the quantization method with diffusers
from diffusers import DiffusionPipeline
from mezzotint.models import Sampling, generate, quiet_libraries

with quiet_libraries():
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
np.save(sys.argv[2], generate(pipe, Sampling(prompts=tuple(sys.argv[3:]))))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"))
    parser.add_argument("--model", default="emoji-turbo")
    parser.add_argument("-n", "--images", type=int, default=256, help="images to compare")
    arguments = parser.parse_args()
    console = Console()
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)

    pipe = mz.load(arguments.model)
    uniform = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8))
    budget = mz.Budget(size=module_bytes(uniform.denoiser), act_bits=8)
    console.print(
        f"Measuring {arguments.model}; budget: the {budget.bytes:,} bytes of uniform 4 bits"
    )
    ours = mz.quantize(pipe, budget=budget, journal=output / "journal.jsonl")
    console.print(ours.plan.summary())
    checkpoint = ours.save(output / f"{arguments.model}-w4a8")

    shown = Sampling(prompts=SHOWN)
    rows = {
        "original": mz.generate(pipe, shown),
        "uniform 4-bit": mz.generate(uniform.pipeline, shown),
    }
    again = reloaded(checkpoint, output / "again.npy")
    rows["mezzotint"] = mz.generate(ours.pipeline, shown)
    difference = np.abs(again.astype(int) - rows["mezzotint"]).max()
    console.print(f"Reloaded by diffusers in a new process: largest pixel difference {difference}")
    if difference:
        sys.exit("the reloaded checkpoint gives other images")
    grid = picture_grid(rows)
    save_picture(grid, output / "grid.png")

    baseline = Baseline.of(pipe, default_sampling(pipe, arguments.images), contrastive_for(pipe))
    evaluations = {
        "uniform 4-bit": evaluate(baseline, uniform.pipeline),
        "mezzotint": evaluate(baseline, ours.pipeline),
    }
    console.print(comparison(evaluations))
    write_json(output / "figures.json", {k: v.to_dict() for k, v in evaluations.items()})
    report(arguments.model, ours, evaluations, grid, output / "report.html")
    for path in (checkpoint, output / "report.html", output / "grid.png"):
        console.print(f"Wrote {path}")


def reloaded(checkpoint: Path, images: Path) -> np.ndarray:
    """The shown prompts through the saved checkpoint, loaded by diffusers in a new process."""
    command = [sys.executable, "-c", FRESH_PROCESS, str(checkpoint), str(images), *SHOWN]
    subprocess.run(command, check=True)
    result: np.ndarray = np.load(images)
    images.unlink()
    return result


def comparison(evaluations: dict[str, Evaluation]) -> Table:
    first = next(iter(evaluations.values()))
    title = f"{first.context['images']} images; the original takes {first.reference_bytes:,} bytes"
    table = Table("figure", *evaluations, title=title)
    for figure in first.figures():
        table.add_row(figure, *(each.figures()[figure] for each in evaluations.values()))
    return table


def report(
    model: str,
    ours: mz.Result,
    evaluations: dict[str, Evaluation],
    grid: Image.Image,
    path: Path,
) -> None:
    original = next(iter(evaluations.values()))
    in_fp16 = original.reference_bytes / (2 * original.reference_weights)
    figures = {"bytes": f"{original.reference_bytes:,}", "of fp16": f"{in_fp16:.3f}"}
    if original.reference_r_precision is not None:
        figures["R-precision"] = f"{original.reference_r_precision.value:.3f}"
    layers = inventory(mz.load(model).unet)
    save_report(
        Report(
            title=f"{model} at 4 bits",
            layers=layer_rows(layers, ours.plan, ours.measurements, executions(ours.denoiser)),
            models=[
                ReportedModel("original", figures),
                *(ReportedModel(name, one.figures()) for name, one in evaluations.items()),
            ],
            pictures=grid,
            prompts=SHOWN,
            context=original.context,
        ),
        path,
    )


if __name__ == "__main__":
    main()
