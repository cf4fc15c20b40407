"""The plan: which format every layer's weight and input take. The only place that says so."""

from mezzotint.plan.choice import Choice
from mezzotint.plan.plan import VERSION, Difference, Plan, diff, dumps
from mezzotint.plan.structure import (
    LayerShape,
    Observer,
    Parts,
    Structure,
    Tensors,
    check_count,
    register_structure,
    structure_named,
)

__all__ = [
    "VERSION",
    "Choice",
    "Difference",
    "LayerShape",
    "Observer",
    "Parts",
    "Plan",
    "Structure",
    "Tensors",
    "check_count",
    "diff",
    "dumps",
    "register_structure",
    "structure_named",
]
