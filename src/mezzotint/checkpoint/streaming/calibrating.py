"""Calibration of a checkpoint on disk, whose floating weights are read where they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors.torch import save_file

from mezzotint.calibration import calibrated
from mezzotint.checkpoint.streaming.calibrated import Calibrated, specs_of
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.checkpoint.streaming.stored_tensors import StoredTensor, stored_tensors_of
from mezzotint.errors import ModelError
from mezzotint.models import Call, quiet_libraries
from mezzotint.plan import Plan
from mezzotint.runtime import pack_layer, smoothed_parameters


def calibrate_on(
    calls: Sequence[Call],
    source: Source,
    kind: type[ModelMixin],
    plan: Plan,
    tensors: Mapping[str, StoredTensor],
    folder: Path,
) -> Calibrated:
    """Run the calls, and write the tensors of the plan's layers that no weight tells.

    In memory are the inputs and outputs of one layer at a time and what is calibrated; weights are
    mapped from their files, whose pages the system drops where it needs room.

    Args:
        calls: of the denoiser, in any floating dtype.
        source: the floating denoiser.
        kind: class of the denoiser.
        plan: names the layers.
        tensors: of the source, whose dtype is what the denoiser is run in.
        folder: empty; a file for each layer is written into it.

    Raises:
        ModelError: diffusers cannot load the denoiser.
        CalibrationError, PlanError: as `calibrated`.
    """
    dtypes = Counter(
        tensor.spec.dtype for tensor in tensors.values() if tensor.spec.dtype.is_floating_point
    )
    dtype = dtypes.most_common(1)[0][0] if dtypes else torch.float32
    try:
        with quiet_libraries():
            # In the dtype that they are stored in, diffusers maps weights and copies none.
            model = kind.from_pretrained(source.denoiser, torch_dtype=dtype, use_safetensors=True)
    except Exception as cause:  # whatever a model's own code may raise
        raise ModelError(f"{source.denoiser}: diffusers cannot load it ({cause})") from cause
    model.requires_grad_(False).eval()
    calibration = calibrated(model, plan, [call.to(dtype=dtype) for call in calls])
    files = []
    for number, name in enumerate(plan.quantized):
        wanted = specs_of(plan, name, model)
        if wanted:
            packed = pack_layer(name, model.get_submodule(name), plan, calibration).state_dict()
            files.append(folder / f"{number}.safetensors")
            save_file({f"{name}.{each}": packed[each].contiguous() for each in wanted}, files[-1])
    norms = smoothed_parameters(model, plan, calibration.tensors)
    if norms:
        files.append(folder / "norms.safetensors")
        save_file(norms, files[-1])
    return stored_tensors_of(tuple(files))
