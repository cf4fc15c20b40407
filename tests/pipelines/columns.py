"""Columns of the matrix of pipelines."""

from __future__ import annotations

COLUMNS = {
    "auto": "quantized by the default recipe",
    "mixdq": "quantized by MixDQ",
    "reload": "saved, and loaded by stock diffusers in a process of its own, bit for bit",
    "lora": "an adapter over packed layers",
    "offload": "weights moved to the device layer by layer",
    "compile": '`torch.compile` of the packed denoiser, with `backend="eager"`',
    "torch_dtype": "loaded with `torch_dtype=torch.bfloat16`",
    "openvino": "the packed denoiser compiled by OpenVINO",
    "latency": "quantized by the default recipe under a `--latency`",
}
"""Column → its meaning."""
