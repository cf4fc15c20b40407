"""Rows of the report: each layer's choice, and the measurements behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mezzotint.formats import FLOAT
from mezzotint.measuring import Figures, Measurements, decibels
from mezzotint.models import Layer
from mezzotint.plan import Choice, LayerShape, Plan
from mezzotint.runtime import Execution, nominal_bits, stored_tensors

FLOAT_BITS = 16.0


@dataclass(frozen=True)
class LayerRow:
    """One layer of the report.

    Attributes:
        weight: weight format, for people where parts have several.
        bits: nominal bits per weight, of all parts; 16 where the layer stays floating.
        stored: bytes of the packed weight, scales included; None where it stays floating.
        measured: weight format → SQNR in decibels of the denoiser's output, this layer alone
            changed; empty where another metric was measured.
        execution: how the layer computes, and why not faster; None where it stays floating.
    """

    name: str
    role: str
    weights: int
    weight: str
    activation: str
    bits: float
    stored: int | None
    measured: Mapping[str, float]
    execution: Execution | None
    reason: str


def layer_rows(
    layers: Sequence[Layer],
    plan: Plan,
    measurements: Measurements,
    executions: Sequence[Execution] = (),
) -> tuple[LayerRow, ...]:
    """A row per layer of the plan, in the model's order."""
    running = {execution.layer: execution for execution in executions}
    rows = []
    for layer in layers:
        if layer.name not in plan.choices:
            continue
        choice = plan[layer.name]
        bits = nominal_bits(choice, LayerShape(layer.weight_shape, layer.groups))
        specs = stored_tensors(choice, layer.weight_shape, layer.groups)
        rows.append(
            LayerRow(
                name=layer.name,
                role=str(layer.role),
                weights=layer.parameters,
                weight=choice.weight_label,
                activation=choice.activation,
                bits=FLOAT_BITS if bits is None else bits,
                stored=sum(spec.nbytes for spec in specs.values()) if specs else None,
                measured=_measured(choice, measurements.get(layer.name, {})),
                execution=running.get(layer.name),
                reason=plan.reasons.get(layer.name, ""),
            )
        )
    return tuple(rows)


def _measured(chosen: Choice, scores: Mapping[Choice, Figures]) -> dict[str, float]:
    """Decibels by weight formats; of several activation formats, the chosen one's count."""
    ordered = sorted(scores.items(), key=lambda item: item[0].activation == chosen.activation)
    return {
        choice.weight_label: decibels(one["noise"]) for choice, one in ordered if "noise" in one
    }


@dataclass(frozen=True)
class RoleRow:
    """Layers of one role together: the share of their weights at each width."""

    role: str
    layers: int
    weights: int
    average_bits: float
    shares: Mapping[str, float]


def role_rows(rows: Sequence[LayerRow]) -> tuple[RoleRow, ...]:
    """Roles with most weights first."""
    groups: dict[str, list[LayerRow]] = {}
    for row in rows:
        groups.setdefault(row.role, []).append(row)
    result = []
    for role, members in groups.items():
        weights = sum(row.weights for row in members)
        shares: dict[str, float] = {}
        for row in sorted(members, key=lambda row: row.bits):
            name = FLOAT if row.weight == FLOAT else f"{row.bits:g}"
            shares[name] = shares.get(name, 0.0) + row.weights / weights
        average = sum(row.bits * row.weights for row in members) / weights
        result.append(RoleRow(role, len(members), weights, average, shares))
    return tuple(sorted(result, key=lambda row: -row.weights))
