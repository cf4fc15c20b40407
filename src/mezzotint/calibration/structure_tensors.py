"""Calibration of structures: the observer of each watches its layers while calls are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.errors import CalibrationError, PlanError
from mezzotint.models import Call
from mezzotint.plan import Observer, Structure, Tensors
from mezzotint.runtime import operation_of, own_tensors, shape_of
from mezzotint.runtime.composition import Place, dotted, input_of, places, weight_of

_Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Refusal:
    """The reason why a layer cannot have a structure.

    Attributes:
        kind: of the structure.
        why: what the calls show.
    """

    kind: str
    why: str


@dataclass(frozen=True, eq=False)
class StructureTensors:
    """Calibrated tensors of structures.

    Attributes:
        tensors: layer → name within it → tensor as it is stored; `Calibration.tensors` takes them.
            Layers whose structures need nothing are left out.
        refused: layer → why it has none.
    """

    tensors: Mapping[str, Tensors] = field(default_factory=dict)
    refused: Mapping[str, Refusal] = field(default_factory=dict)


@torch.no_grad()
def observe_structures(
    denoiser: nn.Module, structures: Mapping[str, tuple[Structure, ...]], calls: Sequence[Call]
) -> StructureTensors:
    """Run the calls for what the layers' structures need calibrated.

    A structure within another is watched as soon as the outer one's tensors are known, which may
    take further runs of the calls. Layers are judged one by one: a structure that the calls do
    not allow is no error here.

    Args:
        denoiser: the floating model.
        structures: layer → its structures, outermost first.
        calls: recorded calls.
    """
    tensors: dict[str, Tensors] = {}
    refused: dict[str, Refusal] = {}
    watched = []
    for name, each in structures.items():
        found = _watched(name, denoiser.get_submodule(name), each)
        if isinstance(found, Refusal):
            refused[name] = found
        elif found is not None:
            watched.append(found)
    todo = watched
    while todo:
        _run(denoiser, todo, calls)
        todo = [layer for layer in todo if layer.next_round()]
    for layer in watched:
        if layer.refusal is not None:
            refused[layer.name] = layer.refusal
        else:
            tensors[layer.name] = layer.known
    return StructureTensors(tensors, refused)


def _watched(
    name: str, layer: nn.Module, structures: tuple[Structure, ...]
) -> _Watched | Refusal | None:
    """None where nothing needs calibrating."""
    if not any(structure.observed for structure in structures):
        return None
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        kind = type(layer).__name__
        return Refusal(structures[0].kind, f"it is a {kind}, neither a Linear nor a Conv2d")
    try:
        found = tuple(places(structures, shape_of(layer)))
    except PlanError as cause:
        return Refusal(structures[0].kind, str(cause))
    return _Watched(name, layer, structures, found)


def _run(denoiser: nn.Module, layers: Iterable[_Watched], calls: Sequence[Call]) -> None:
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.module.register_forward_hook(layer.observe))
        for call in calls:
            call.run(denoiser)


@dataclass(eq=False)
class _Watched:
    """One layer, and those of its structures whose turn it is.

    Attributes:
        places: of all its structures; equal ones of several parts are watched together.
        known: name within the layer → calibrated tensor.
    """

    name: str
    module: _Layer
    structures: tuple[Structure, ...]
    places: tuple[Place, ...]
    known: dict[str, Tensor] = field(default_factory=dict, init=False)
    refusal: Refusal | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._turns = [n for n, each in enumerate(self.structures) if each.observed]
        self._begin()

    def _begin(self) -> None:
        """Set observers on the next structures."""
        depth = self._turns.pop(0)
        shape, weight = shape_of(self.module), self.module.weight.detach()
        self._tensors = own_tensors(self.structures[:depth], weight, shape, self.known)
        self._observers: list[tuple[Place, Tensor, Observer]] = []
        for place in self.places:
            if place.depth == depth:
                part = weight_of(place.path, weight, self.structures, shape, self._tensors)
                observer = place.structure.observer(part, place.layer)
                self._observers.append((place, part, observer))

    def observe(self, module: _Layer, inputs: tuple[Any, ...], output: Tensor) -> None:
        """A forward hook."""
        shape = shape_of(module)
        for place, weight, observer in self._observers:
            if not place.path:
                observer.observe(inputs[0], lambda: output)
                continue
            try:
                x = input_of(place.path, inputs[0], self.structures, shape, self._tensors)
            except PlanError as cause:
                self.refusal = Refusal(self.structures[0].kind, str(cause))
                return
            observer.observe(x, partial(operation_of(module).apply, x, weight, None))

    def next_round(self) -> bool:
        """Take what the observers found; whether there are others to come."""
        if self.refusal is not None:
            return False
        for place, _, observer in self._observers:
            try:
                found = observer.tensors()
            except CalibrationError as cause:
                self.refusal = Refusal(place.structure.kind, str(cause))
                return False
            self.known |= {dotted(place.path, name): each for name, each in found.items()}
        if not self._turns:
            return False
        self._begin()
        return True
