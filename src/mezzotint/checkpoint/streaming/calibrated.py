"""Tensors that no weight tells: of ranges, structures, training, or a look at inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mezzotint._digest_file import checked_digests
from mezzotint._tensor_digests import check_digests, file_digests, verifying
from mezzotint.checkpoint.save import quantization_configs
from mezzotint.checkpoint.streaming.stored_tensors import (
    StoredTensor,
    stored_tensors_of,
    weight_files,
)
from mezzotint.errors import CheckpointError, PlanError
from mezzotint.formats import TensorSpec
from mezzotint.models import check_model_folder
from mezzotint.plan import TRAINED, Plan
from mezzotint.runtime import (
    NormSmoothing,
    calibrated_tensors,
    shape_of,
    smoothing_norms,
    stored_tensors,
)

Calibrated = Mapping[str, StoredTensor]
"""Name in the packed checkpoint → where the calibrated tensor stands."""


def specs_of(plan: Plan, name: str, model: nn.Module) -> dict[str, TensorSpec]:
    """The tensors that a layer stores under its plan and its weight does not tell."""
    layer, encoding = model.get_submodule(name), plan.encoding_of(name)
    shape = shape_of(layer)
    # Exponents that norms take up are not stored, but weights are rounded under them.
    unstored = any(isinstance(each, NormSmoothing) for each in plan[name].structures)
    of_inputs = encoding.trained or encoding.needs_grams or unstored
    specs = stored_tensors if of_inputs else calibrated_tensors
    found = specs(plan[name], shape.weight, shape.groups)
    if encoding.bias_correction and layer.bias is not None:
        found["bias"] = TensorSpec.of(layer.get_parameter("bias"))
    return found


def floating_specs(plan: Plan, model: nn.Module) -> dict[str, TensorSpec]:
    """The tensors that stay floating, and whose values calibration or training has changed.

    Those are the parameters of norms that smooth inputs; and of a plan with trained weights all, as
    biases and norms may have been trained with them.
    """
    if plan.trained:
        packed = {f"{name}.weight" for name in plan.quantized}
        state = {name: each for name, each in model.state_dict().items() if name not in packed}
        return {n: TensorSpec.of(each) for n, each in state.items() if each.is_floating_point()}
    return {
        f"{norm}.{own}": TensorSpec.of(parameter)
        for norm in smoothing_norms(plan)
        for own, parameter in model.get_submodule(norm).named_parameters(recurse=False)
    }


def find_calibrated(plan: Plan, model: nn.Module, checkpoint: Path | None = None) -> Calibrated:
    """Places of the calibrated tensors of the plan's layers.

    Args:
        plan: the plan.
        model: the float model, on the meta device.
        checkpoint: folder of a quantized pipeline or denoiser that holds them.

    Raises:
        PlanError: layers need calibration or were trained, and there is no checkpoint to take that
            from.
        ModelError, CheckpointError: the checkpoint is unsafe or damaged, see `check_model_folder`.
        CheckpointError: it lacks a calibrated tensor, has it in another form, or is not what was
            saved.
    """
    wanted = {
        f"{layer}.{name}": spec
        for layer in plan.quantized
        for name, spec in specs_of(plan, layer, model).items()
    } | floating_specs(plan, model)
    if not wanted:
        return {}
    if checkpoint is None and plan.trained:
        raise PlanError(
            f"layer {plan.trained[0]}: rounding {TRAINED!r}: its weight stands in the checkpoint "
            "that it was trained for; give the folder of that instead"
        )
    if checkpoint is None:
        raise PlanError(_refusal(plan, model))
    check_model_folder(checkpoint)
    path, config = _packed_config(checkpoint)
    files = weight_files(path.parent)
    stored = stored_tensors_of(files)
    for name, spec in wanted.items():
        if name not in stored or not _fits(stored[name].spec, spec):
            raise CheckpointError(
                f"{checkpoint}: {name}: is missing, or not {spec.dtype} of shape {spec.shape} as "
                "the plan says; name a checkpoint that was quantized after this plan"
            )
    _check_saved(files, path, config)
    return {name: stored[name] for name in wanted}


def _fits(found: TensorSpec, spec: TensorSpec) -> bool:
    """True where a stored tensor is as wanted: biases and norms in any floating dtype."""
    floating = found.dtype.is_floating_point and spec.dtype.is_floating_point
    return found.shape == spec.shape and (floating or found.dtype == spec.dtype)


def _refusal(plan: Plan, model: nn.Module) -> str:
    needy = {
        layer: choice for layer, choice in plan.quantized.items() if specs_of(plan, layer, model)
    }
    shown = ", ".join(f"{layer} ({choice})" for layer, choice in list(needy.items())[:3])
    left_out = {
        f"{structure.kind} (with inputs such as 'int8/token')"
        if structure.granularity
        else structure.kind
        for choice in needy.values()
        for structure in choice.structures
        if structure.calibrated
    }
    remedies = sorted(left_out)
    if any(choice.static for choice in needy.values()):
        remedies.append("static ranges (for dynamic ones such as 'int8/token')")
    encodings = [plan.encoding_of(layer) for layer in needy]
    looking = sorted({each.rounding for each in encodings if each.needs_grams})
    remedies += [f"rounding {rounding!r} (for 'nearest')" for rounding in looking]
    if any(each.bias_correction for each in encodings):
        remedies.append("bias_correction")
    return (
        f"{len(needy)} layer(s) of the plan have a static input range, a structure, or an encoding "
        "that looks at inputs, which come from calibration and stand in no plan: "
        f"{shown}{' …' if len(needy) > 3 else ''}; "
        "give the folder of a checkpoint quantized after the plan instead, or calls "
        "beside the plan (PlanWithCalls), or leave out "
        f"{' and '.join(remedies)}"
    )


def _packed_config(checkpoint: Path) -> tuple[Path, Mapping[str, Any]]:
    """config.json of the packed weights, the folder's own or its first, and what that says."""
    for path, config in quantization_configs(checkpoint, CheckpointError):
        return path, config
    raise CheckpointError(f"{checkpoint}: holds no quantized model; name the folder of one")


def _check_saved(files: tuple[Path, ...], path: Path, config: Mapping[str, Any]) -> None:
    """Refuse files that are not what was saved: damage taken over would get digests of its own."""
    if config.get("sha256") is not None and verifying():
        expected = checked_digests(config["sha256"], f"{path}: quantization_config: sha256")
        found = {name: digest for file in files for name, digest in file_digests(file).items()}
        check_digests(found, expected, path.parent)
