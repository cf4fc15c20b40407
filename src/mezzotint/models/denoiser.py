"""Search for the component of a pipeline that denoises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from mezzotint._time_argument import TimeArgument
from mezzotint.errors import ModelError
from mezzotint.models.given_pipeline import check_pipeline
from mezzotint.models.source import WEIGHTS_SUFFIX


def find_denoiser(pipe: DiffusionPipeline) -> tuple[str, nn.Module]:
    """The name and module of the one component that predicts noise.

    It is a diffusers model whose `forward` takes a timestep: autoencoders, text encoders and
    adapters do not. ControlNets do, but only assist, and are passed over.

    Raises:
        ModelError: the pipeline has no such component, or several.
        UsageError: what is given is no pipeline.
    """
    found = find_denoisers(pipe)
    if len(found) == 1:
        return next(iter(found.items()))
    kind = type(pipe).__name__
    if found:
        raise ModelError(
            f"{kind} has several denoisers ({', '.join(found)}), and this is for one; quantize, "
            "apply, record_calls and evaluate take them together"
        )
    raise ModelError(
        f"{kind} has no denoiser: none of its components ({', '.join(pipe.components)}) "
        "is a diffusers model that takes a timestep"
    )


def find_denoisers(pipe: DiffusionPipeline) -> dict[str, nn.Module]:
    """Component → module of everything in the pipeline that predicts noise, in its order.

    Such as the two transformers of Wan 2.2, of which one denoises the first steps and the other
    the rest.

    Raises:
        UsageError: what is given is no pipeline.
    """
    check_pipeline(pipe)
    return {name: part for name, part in pipe.components.items() if denoises(type(part))}


def denoises(kind: type[Any]) -> bool:
    """True if modules of that class predict noise."""
    if not issubclass(kind, ModelMixin) or "ControlNet" in kind.__name__:
        return False
    return TimeArgument.of(kind.forward) is not None


def model_name(pipe: DiffusionPipeline) -> str:
    """Name of a pipeline in plans and reports: the last part of its source."""
    if not pipe.name_or_path:
        return type(pipe).__name__
    return Path(pipe.name_or_path).name.removesuffix(WEIGHTS_SUFFIX)
