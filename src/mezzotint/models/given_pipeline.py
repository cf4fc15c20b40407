"""Other things that are given where a pipeline is expected, and the right call for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn

from mezzotint.errors import UsageError


def check_pipeline(value: Any, name: str = "pipe") -> None:
    """Refuse what is no pipeline.

    Pipelines that are no subclass of diffusers' own are taken, if they list their components.

    Args:
        value: whatever was given.
        name: of the parameter.

    Raises:
        UsageError: telling how a pipeline is had of it.
    """
    if isinstance(value, DiffusionPipeline) or isinstance(
        getattr(value, "components", None), Mapping
    ):
        return
    raise UsageError(f"{name}: is {_advice(value)}")


def check_module(value: Any, name: str = "module") -> None:
    """Refuse what is no bare module.

    Raises:
        UsageError: telling how a module is had of it.
    """
    if isinstance(value, DiffusionPipeline):
        raise UsageError(
            f"{name}: is a {type(value).__name__}, a pipeline; give its denoiser, such as "
            "pipe.unet or pipe.transformer, or use mezzotint.quantize(pipe)"
        )
    if not isinstance(value, nn.Module):
        raise UsageError(f"{name}: is a {type(value).__name__}; give a torch.nn.Module")


def _advice(value: Any) -> str:
    match value:
        case str() | Path():
            return f"{str(value)!r}; give a pipeline: mezzotint.load({str(value)!r})"
        case nn.Module():
            kind = type(value).__name__
            return (
                f"a bare {kind}, not a pipeline; give the pipeline around it, or use "
                "mezzotint.quantize_module(module, calls) or mezzotint.quantize_denoiser(module)"
            )
        case type():
            return f"the class {value.__name__}; give a pipeline: mezzotint.load(...)"
    kind = type(value).__name__
    if isinstance(getattr(value, "pipeline", None), DiffusionPipeline):
        return f"a {kind}; give its pipeline, which is the quantized one: .pipeline"
    return f"a {kind}; give a pipeline first: mezzotint.load(...)"
