"""Prompts for those who bring none."""

from __future__ import annotations

from importlib import resources
from itertools import cycle, islice
from pathlib import Path

from diffusers import DiffusionPipeline

from mezzotint.models import Sampling, read_prompts

PROMPTS_FILE = "prompts.txt"
"""Optional file in a pipeline's folder: prompts of its own domain, one per line."""

CALIBRATION_COUNT = 8


def default_sampling(
    pipe: DiffusionPipeline, count: int = CALIBRATION_COUNT, seed: int = 0
) -> Sampling:
    """The first prompts of the pipeline's folder, or of a general list, at the default steps.

    Where `count` exceeds the list, prompts repeat with further seeds.
    """
    path = Path(pipe.name_or_path or "") / PROMPTS_FILE
    if not path.is_file():
        path = Path(str(resources.files("mezzotint"))) / "data" / PROMPTS_FILE
    return Sampling(prompts=tuple(islice(cycle(read_prompts(path)), count)), seed=seed)
