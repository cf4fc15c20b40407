"""Tensors that no weight tells: input ranges, those of structures, and trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from mezzotint.checkpoint.save import quantization_configs
from mezzotint.checkpoint.streaming.stored_tensors import (
    StoredTensor,
    stored_tensors_of,
    weight_files,
)
from mezzotint.errors import CheckpointError, PlanError
from mezzotint.formats import FLOAT, TensorSpec
from mezzotint.models import check_model_folder
from mezzotint.plan import TRAINED, Choice, Plan
from mezzotint.runtime import calibrated_tensors, shape_of, stored_tensors

Calibrated = Mapping[str, StoredTensor]
"""Name in the packed checkpoint → where the calibrated tensor stands."""


def of_weight_alone(choice: Choice) -> Choice:
    """`choice` without its activation format: the same tensors, but for static input ranges."""
    return replace(choice, activation=FLOAT)


def specs_of(plan: Plan, name: str, model: nn.Module) -> dict[str, TensorSpec]:
    """The tensors that a layer stores under its plan and its weight does not tell."""
    shape = shape_of(model.get_submodule(name))
    specs = stored_tensors if plan.encoding_of(name).trained else calibrated_tensors
    return specs(plan[name], shape.weight, shape.groups)


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
        CheckpointError: it lacks a calibrated tensor, or has it in another form.
    """
    wanted = {
        f"{layer}.{name}": spec
        for layer in plan.quantized
        for name, spec in specs_of(plan, layer, model).items()
    }
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
    stored = stored_tensors_of(weight_files(_packed_folder(checkpoint)))
    for name, spec in wanted.items():
        if name not in stored or stored[name].spec != spec:
            raise CheckpointError(
                f"{checkpoint}: {name}: is missing, or not {spec.dtype} of shape {spec.shape} as "
                "the plan says; name a checkpoint that was quantized after this plan"
            )
    return {name: stored[name] for name in wanted}


def _refusal(plan: Plan, model: nn.Module) -> str:
    needy = {
        layer: choice for layer, choice in plan.quantized.items() if specs_of(plan, layer, model)
    }
    shown = ", ".join(f"{layer} ({choice})" for layer, choice in list(needy.items())[:3])
    left_out = {
        structure.kind
        for choice in needy.values()
        for structure in choice.structures
        if structure.calibrated
    }
    remedies = sorted(left_out)
    if any(choice.static for choice in needy.values()):
        remedies.append("static ranges (for dynamic ones such as 'int8/token')")
    return (
        f"{len(needy)} layer(s) of the plan have a static input range or a structure, which come "
        f"from calibration and stand in no plan: {shown}{' …' if len(needy) > 3 else ''}; "
        "give the folder of a checkpoint quantized after the plan instead, or leave out "
        f"{' and '.join(remedies)}"
    )


def _packed_folder(checkpoint: Path) -> Path:
    """The folder with the packed weights: the one given, or its first that has any."""
    for path, _ in quantization_configs(checkpoint, CheckpointError):
        return path.parent
    raise CheckpointError(f"{checkpoint}: holds no quantized model; name the folder of one")
