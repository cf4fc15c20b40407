"""Quantized models in one line, and as a table for notebooks."""

from __future__ import annotations

from torch import nn

from mezzotint._tables import html_table
from mezzotint.plan import Plan
from mezzotint.runtime.size import module_bytes


def quantized_line(kind: str, plan: Plan, module: nn.Module) -> str:
    """One line that tells a quantized model from others.

    Args:
        kind: of the value.
        plan: that it was packed after.
        module: the packed denoiser.
    """
    model = plan.model or type(module).__name__
    return (
        f"<{kind} of {model}: {len(plan.quantized)} of {len(plan)} layers quantized, "
        f"{module_bytes(module):,} bytes>"
    )


def quantized_html(line: str, plan: Plan) -> str:
    """HTML of the plan's summary, under a line."""
    return html_table(plan.summary(), line)
