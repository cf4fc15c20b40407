"""A floating denoiser that may be larger than memory: its layers' weights stay in their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from diffusers import DiffusionPipeline, ModelMixin

from mezzotint.checkpoint.streaming.conversions import conversions_of
from mezzotint.checkpoint.streaming.file_weight import file_weight
from mezzotint.checkpoint.streaming.source_folder import Source, empty_denoiser, find_source
from mezzotint.checkpoint.streaming.stored_tensors import stored_tensors_of, weight_files
from mezzotint.errors import ModelError
from mezzotint.models import SourceOptions, folder_dtype, load_pipeline, usable_device
from mezzotint.models.kinds import is_plain, weight_layers
from mezzotint.models.source import NO_OPTIONS
from mezzotint.plan import Plan


def load_streamed(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    options: SourceOptions = NO_OPTIONS,
) -> DiffusionPipeline:
    """A floating pipeline around a streamed denoiser; its other components are in memory.

    Raises:
        ModelError, CheckpointError, UsageError: as `load_pipeline` and `streamed_denoiser`.
    """
    found = find_source(source, options)
    if found.component is None:
        raise ModelError(f"{source}: holds a single model; name the folder of the whole pipeline")
    if dtype is None:
        dtype = folder_dtype(found.folder, usable_device(device), options.variant)
    denoiser = streamed_denoiser(found, dtype, device)
    parts = {found.component: denoiser}
    return load_pipeline(source, dtype=dtype, device=device, components=parts, options=options)


def streamed_denoiser(
    source: Source, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> ModelMixin:
    """The denoiser of a folder, whose Linear and convolution weights are read when they are used.

    Whoever computes with such a weight, forward or backward, reads it from its file, and it is
    forgotten with the operation: one layer's is in memory at a time. Norms, biases and embeddings
    are in memory throughout.

    Args:
        source: the floating denoiser.
        dtype: that it is computed in; by default the one that most of its tensors are stored in.
        device: that it is computed on.

    Raises:
        ModelError: it is no model of diffusers, or the device cannot be used.
        CheckpointError: a file is truncated or damaged, or a tensor missing or of another shape.
        UsageError: it is quantized already.
    """
    tensors = stored_tensors_of(weight_files(source.denoiser, source.variant))
    if dtype is None:
        stored = (each.spec.dtype for each in tensors.values())
        dtypes = Counter(each for each in stored if each.is_floating_point)
        dtype = dtypes.most_common(1)[0][0] if dtypes else torch.float32
    place = usable_device(device)
    with _default_dtype(dtype):
        # Buffers that no file holds are made by the model itself.
        model = empty_denoiser(source, init_empty_weights(include_buffers=False))
    streamed = {f"{name}.weight" for name, layer in weight_layers(model) if is_plain(layer)}
    for conversion in conversions_of(model, Plan({}), tensors, dtype):
        ((name, spec),) = conversion.outputs.items()
        if name in streamed:
            layer = model.get_submodule(name.rpartition(".")[0])
            layer.weight = file_weight(conversion.source, spec.dtype, place)
            continue
        value = conversion.source.read().to(place, spec.dtype, copy=True)
        set_module_tensor_to_device(model, name, place, value, dtype=spec.dtype)
    model.register_to_config(_name_or_path=str(source.denoiser))
    return model.to(place).requires_grad_(False).eval()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Dtype of tensors that are made meanwhile, as diffusers sets it for a model of that dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
