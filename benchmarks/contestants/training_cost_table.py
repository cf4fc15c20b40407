"""Costs of an update as a table, a column for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .update_cost import Cost

GIB, TERA = 2**30, 1e12


@dataclass(frozen=True)
class Line:
    """One line of the table: a title, and the unit's figure of a cost."""

    title: str
    name: str


BYTES = (
    Line("float weights, of teacher and student", "floating_weights"),
    Line("LoRA", "lora"),
    Line("Δ and z of weights and inputs", "quantizers"),
    Line("their gradients", "gradients"),
    Line("AdamW's moments", "moments"),
    Line("Ŵ, and what its rounding keeps", "rounded_weights"),
    Line("gradients of Ŵ", "rounded_gradients"),
    Line("activations of the window", "activations"),
    Line("activations, blocks computed again", "activations_again"),
)
MACS = (
    Line("teacher forward", "teacher_macs"),
    Line("student forward", "forward_macs"),
    Line("backward", "backward_macs"),
    Line("blocks computed again", "again_macs"),
)


def markdown(costs: Mapping[str, Cost]) -> str:
    """Rows of bytes and of multiply-accumulates, a column for each model; Markdown."""
    names = list(costs)
    rows = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]

    def row(title: str, figures: Sequence[float], digits: int) -> None:
        rows.append(f"| {title} | {' | '.join(f'{each:,.{digits}f}' for each in figures)} |")

    found = list(costs.values())
    for line in BYTES:
        row(f"{line.title}, GiB", [getattr(each, line.name) / GIB for each in found], 2)
    for title, again in (("peak", False), ("peak, blocks computed again", True)):
        row(f"**{title}**, GiB", [each.peak(again=again) / GIB for each in found], 1)
    for line in MACS:
        row(f"{line.title}, 10¹² MACs", [getattr(each, line.name) / TERA for each in found], 1)
    for title, again in (("update", False), ("update, blocks computed again", True)):
        row(f"**{title}**, 10¹² MACs", [each.macs(again=again) / TERA for each in found], 1)
    return "\n".join(rows)
