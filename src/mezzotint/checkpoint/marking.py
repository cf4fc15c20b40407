"""Models that are packed in memory, made known to the library that saves them."""

from __future__ import annotations

from diffusers import DiffusionPipeline, ModelMixin
from torch import nn
from transformers import PreTrainedModel

from mezzotint.checkpoint.diffusers import mark_diffusers_model
from mezzotint.checkpoint.transformers import mark_transformers_model
from mezzotint.errors import UsageError
from mezzotint.plan import Plan
from mezzotint.runtime import packed_layers


def is_savable(model: nn.Module) -> bool:
    """True for a model of diffusers or of transformers: `save_pretrained` can keep its plan."""
    return isinstance(model, ModelMixin | PreTrainedModel)


def mark_quantized(model: nn.Module, plan: Plan) -> None:
    """Tell the library of `model`, packed in memory, that it is quantized by us and can be saved.

    Raises:
        UsageError: it is a model of neither diffusers nor transformers.
    """
    if isinstance(model, ModelMixin):
        mark_diffusers_model(model, plan)
    elif isinstance(model, PreTrainedModel):
        mark_transformers_model(model, plan)
    else:
        raise UsageError(
            f"a {type(model).__name__} is no model of diffusers or transformers, which would keep "
            "its plan when it is saved; save its state_dict and the plan yourself"
        )


def plan_of(model: nn.Module) -> Plan | None:
    """The plan that a packed model would be saved with; None where it is not packed as a whole."""
    plan = getattr(getattr(model, "hf_quantizer", None), "plan", None)
    return plan if isinstance(plan, Plan) else None


def packed_plans(pipe: DiffusionPipeline) -> dict[str, Plan]:
    """Component → plan of the packed ones of a pipeline, in its order."""
    parts = {name: each for name, each in pipe.components.items() if isinstance(each, nn.Module)}
    return {name: plan for name, part in parts.items() if (plan := plan_of(part)) is not None}


def holds_unmarked(model: nn.Module) -> bool:
    """True where layers are packed without a plan that would be saved with the model."""
    return bool(packed_layers(model)) and plan_of(model) is None
