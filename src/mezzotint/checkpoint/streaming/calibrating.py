"""Calibration of a checkpoint on disk, whose floating weights are read where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from mezzotint.calibration import calibrated
from mezzotint.checkpoint.streaming.calibrated import Calibrated, specs_of
from mezzotint.checkpoint.streaming.source_folder import Source
from mezzotint.checkpoint.streaming.stored_tensors import stored_tensors_of
from mezzotint.checkpoint.streaming.streamed_denoiser import streamed_denoiser
from mezzotint.models import Call
from mezzotint.plan import Plan
from mezzotint.runtime import pack_layer, smoothed_parameters


def calibrate_on(
    calls: Sequence[Call],
    source: Source,
    plan: Plan,
    folder: Path,
) -> Calibrated:
    """Run the calls, and write the tensors of the plan's layers that no weight tells.

    The denoiser is run in the dtype that most of its tensors are stored in. In memory are one
    layer's weight, inputs and outputs at a time, and what is calibrated.

    Args:
        calls: of the denoiser, in any floating dtype.
        source: the floating denoiser.
        plan: names the layers.
        folder: empty; a file for each layer is written into it.

    Raises:
        ModelError, CheckpointError: as `streamed_denoiser`.
        CalibrationError, PlanError: as `calibrated`.
    """
    model = streamed_denoiser(source)
    calibration = calibrated(model, plan, [call.to(dtype=model.dtype) for call in calls])
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
