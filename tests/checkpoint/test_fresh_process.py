"""Loading in a fresh process: stock diffusers, with and without our import."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import mezzotint as mz
from tests.checkpoint.packed import PROMPT

LOAD_AND_RUN = """
import sys
{imports}
import numpy, torch
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
noise = torch.Generator().manual_seed(0)
images = pipe(sys.argv[2], 16, 16, 2, guidance_scale=1.0, generator=noise, output_type="np").images
numpy.save(sys.argv[3], images)
"""


def run(folder: Path, output: Path, imports: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOAD_AND_RUN.format(imports=imports), folder, PROMPT, output],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_after_the_import_diffusers_gives_the_same_image(
    result: mz.Result, saved: Path, tmp_path: Path
):
    process = run(saved, tmp_path / "images.npy", "import mezzotint")
    assert process.returncode == 0, process.stderr
    noise = torch.Generator().manual_seed(0)
    expected = result.pipeline(
        PROMPT, 16, 16, 2, guidance_scale=1.0, generator=noise, output_type="np"
    ).images
    assert np.abs(np.load(tmp_path / "images.npy") - expected).max() <= 1e-3


def test_without_it_diffusers_says_what_is_missing(saved: Path, tmp_path: Path):
    process = run(saved, tmp_path / "images.npy", "")
    assert process.returncode == 1
    assert "Unknown quantization type, got mezzotint" in process.stderr
