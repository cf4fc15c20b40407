"""The way in: a pipeline by its name, folder, file or place on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from mezzotint._files import at_home
from mezzotint._tensor_digests import verification
from mezzotint.checkpoint.streaming import load_streamed
from mezzotint.engines import check_engine
from mezzotint.errors import UsageError
from mezzotint.models import (
    LoraName,
    Pipeline,
    SourceOptions,
    load_pipeline,
    lora_files,
    merge_loras,
    with_generation_defaults,
)
from mezzotint.recipes import check_floating
from mezzotint.speed import with_engine


def load(  # noqa: PLR0913  (all but one are keywords)
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    revision: str | None = None,
    variant: str | None = None,
    token: str | None = None,
    config: str | Path | None = None,
    lora: LoraName | Sequence[LoraName] | None = None,
    engine: str = "torch",
    stream: bool = False,
    verify: bool = True,
) -> Pipeline:
    """Load a pipeline, quantized or not: embedded name, local folder, single file or Hub id.

    Where the folder holds a `generation.json`, its values are the defaults of `pipe(prompt)`.

    Args:
        source: what to load. A single file is of safetensors, in its authors' layout.
        dtype: of everything that is not packed, and of what is computed; by default the
            checkpoint's own, on processors float32 in the place of float16.
        device: where to.
        revision: branch, tag or commit of a repository of the Hub.
        variant: part of the names of weights' files, such as `fp16`.
        token: for a repository that is not public; by default the stored login.
        config: folder of a diffusers pipeline that a single file is read by; what the file does
            not hold is taken from there. By default diffusers' own choice, from the Hub.
        lora: safetensors files of LoRAs, merged into the weights; `FILE:0.8` merges one by that
            factor. A plan names them.
        engine: what computes the denoiser, as for `with_engine`: `torch`, `openvino`, or `auto`,
            the fastest on this machine, which is measured once.
        stream: leave the floating denoiser's weights in their files, for one larger than memory:
            each layer's is read when it is used, and forgotten. It is slow, and there to be
            quantized.
        verify: compare what is stored with the digests that were saved with it, and refuse NaN and
            infinity in any tensor. Off, that is taken on trust, and no time is spent on it.

    Raises:
        ModelError: there is no such pipeline, or it is incomplete.
        CheckpointError: a file is truncated, does not match its plan, or is not what was saved.
        UsageError: the engine is unknown, not installed, or does not compute there; a denoiser
            is to be streamed that is quantized already, or computed by another engine than torch;
            or a LoRA is to be merged into one that is packed or streamed.
    """
    check_engine(engine)
    if stream and engine != "torch":
        raise UsageError(f"engine: {engine} compiles the whole denoiser; leave it or stream out")
    loras = lora_files(lora)
    if stream and loras:
        raise UsageError("lora: is merged in memory; leave it or stream out")
    options = SourceOptions(revision, variant, token, None if config is None else at_home(config))
    loader = load_streamed if stream else load_pipeline
    with verification(verify):
        pipe = loader(source, dtype=dtype, device=device, options=options)
    if loras:
        for name, part in pipe.components.items():
            if isinstance(part, nn.Module):
                check_floating(name, part)
        merge_loras(pipe, loras)
    pipe = with_generation_defaults(pipe)
    return pipe if engine == "torch" else with_engine(pipe, engine)
