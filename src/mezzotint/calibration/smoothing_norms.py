"""Norms that smooth inputs of a plan, compared with what the model does with their outputs."""

from __future__ import annotations

from mezzotint.errors import PlanError
from mezzotint.models import Graph
from mezzotint.plan import Plan
from mezzotint.runtime import NormSmoothing, smoothing_norms

_REMEDY = "take smoothing in its place, which stores a byte for each input channel"


def check_readers(plan: Plan, graph: Graph) -> None:
    """Refuse a norm whose output is read by more than the layers that it is said to smooth for.

    Raises:
        PlanError: naming a layer and the norm.
    """
    for norm, layers in smoothing_norms(plan).items():
        where = f"layer {layers[0]}: {NormSmoothing.kind}: "
        readers = graph.norm_siblings.get(norm, ())
        others = sorted({*layers}.symmetric_difference(readers))
        if not readers:
            raise PlanError(
                f"{where}{norm} is no norm whose output is read by layers of one input and by "
                f"nothing else, with nothing between; {_REMEDY}"
            )
        if others:
            raise PlanError(
                f"{where}the output of {norm} is read by {', '.join(readers)}, and {others[0]} "
                f"differs from what the plan says; give the same to all of them, or {_REMEDY}"
            )
