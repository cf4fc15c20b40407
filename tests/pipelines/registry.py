"""Every tiny pipeline, and the columns of the matrix."""

from __future__ import annotations

from tests.pipelines.text_to_image import TEXT_TO_IMAGE
from tests.pipelines.tiny_pipeline import TinyPipeline
from tests.pipelines.u_nets import U_NETS
from tests.pipelines.videos import VIDEOS
from tests.pipelines.without_text import WITHOUT_TEXT

PIPELINES: tuple[TinyPipeline, ...] = (*U_NETS, *TEXT_TO_IMAGE, *VIDEOS, *WITHOUT_TEXT)

COLUMNS = {
    "auto": "quantized by the default recipe",
    "mixdq": "quantized by MixDQ",
    "reload": "saved, and loaded by stock diffusers in a process of its own, bit for bit",
    "lora": "an adapter over packed layers",
    "offload": "weights moved to the device layer by layer",
    "compile": "`torch.compile` of the packed denoiser",
    "dtype": "loaded with `torch_dtype=torch.bfloat16`",
    "openvino": "the packed denoiser compiled by OpenVINO",
    "latency": "quantized by the default recipe under a `--latency`",
}
"""Column → its meaning."""
