"""A pipeline around the smallest U-Net, and labels of it that take little time."""

from __future__ import annotations

from pathlib import Path

from mezzotint.recipes.label_options import SampleOptions
from tests.models import tiny

FORMATS = ("kmeans3/tensor", "uint3/channel", "kmeans4/channel")
FEW = SampleOptions(count=4, formats=FORMATS, metric="noise", images=2)


def save_smallest(folder: Path) -> Path:
    """One step, and two prompts of its own."""
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet())
    pipe.save_pretrained(folder)
    tiny.write_generation(folder, num_inference_steps=1, guidance_scale=1.0)
    (folder / "prompts.txt").write_text("owl\nred apple\n")
    return folder
