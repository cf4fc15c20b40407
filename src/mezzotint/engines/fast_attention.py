"""Attention of a whole pipeline in the fastest way on the processor, or torch's again."""

from __future__ import annotations

from torch import nn

from mezzotint.errors import UsageError
from mezzotint.models import Pipeline
from mezzotint.runtime import has_fast_attention, use_fast_attention


def fast_attention(pipe: Pipeline, *, enabled: bool = True) -> Pipeline:
    """Compute attention of a pipeline, quantized or not, in the fastest way on the processor.

    Of packed models that is so from the start. For each class of shapes the ways are timed once on
    this machine; torch's own function serves where it is the fastest, on other devices, and where
    gradients are wanted or the model is compiled or traced. Files that are saved do not tell.

    Args:
        pipe: changed in place, all models of diffusers in it.
        enabled: False for torch's own function everywhere, as diffusers has it.

    Returns:
        The pipeline.

    Raises:
        UsageError: no model of the pipeline has attention that could be computed otherwise.
    """
    models = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    for part in models:
        use_fast_attention(part, enabled=enabled)
    if enabled and not any(map(has_fast_attention, models)):
        raise UsageError(
            f"{type(pipe).__name__} has no attention layer that computes by torch's "
            "scaled_dot_product_attention; give its models such processors first, such as "
            "AttnProcessor2_0"
        )
    return pipe
