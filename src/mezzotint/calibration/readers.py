"""Layers that read one tensor, as the observers of structures are given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from mezzotint.errors import PlanError
from mezzotint.models import Call, Graph, trace_calls
from mezzotint.plan import Reader, Structure, Tensors
from mezzotint.runtime import shape_of
from mezzotint.runtime.composition import weight_of
from mezzotint.runtime.layer_tensors import Place, quantizers


@dataclass(frozen=True, eq=False)
class Readers:
    """Layers of a floating model, or the same part of each; every one is made once.

    Attributes:
        denoiser: the model.
        calls: the first is traced for the graph, where it is needed and not given.
        graph: of the denoiser; tells which layers read the very same tensor.
    """

    denoiser: nn.Module
    calls: Sequence[Call]
    graph: Graph | None
    _made: dict[tuple[object, ...], Reader] = field(default_factory=dict, init=False)

    @cached_property
    def _siblings(self) -> dict[str, tuple[str, ...]]:
        graph = self.graph or trace_calls(self.denoiser, self.calls)
        return graph.siblings

    def of(
        self, name: str, structures: tuple[Structure, ...], place: Place, tensors: Tensors
    ) -> tuple[Reader, ...]:
        """A layer's part at the place of a structure, and its siblings' after it.

        A sibling that cannot have the structures around that part has no such part.

        Args:
            name: of the layer.
            structures: of the layer.
            place: where among them.
            tensors: of the structures around.
        """
        others = self._siblings.get(name, ()) if place.structure.same_for_siblings else ()
        outer = structures[: place.depth]
        own = self._reader(name, outer, place.path, tensors)
        assert own is not None, "the layer has its structures"
        found = [self._reader(each, outer, place.path, tensors) for each in others if each != name]
        return (own, *(each for each in found if each is not None))

    def _reader(
        self, name: str, outer: tuple[Structure, ...], path: str, tensors: Tensors
    ) -> Reader | None:
        layer = self.denoiser.get_submodule(name)
        weight, shape = layer.get_parameter("weight").detach(), shape_of(layer)
        try:
            part = dict(quantizers(outer, shape))[path]
            weight = weight_of(path, weight, outer, shape, tensors)
        except PlanError:
            return None
        # Text projections have as many siblings as there are of them: each is looked through once.
        key = name, weight.data_ptr(), weight.shape, weight.stride(), weight.dtype
        return self._made.setdefault(key, Reader(weight, part))
