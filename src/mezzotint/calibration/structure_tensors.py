"""Calibration of structures: the observer of each watches its layers while calls are run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint._progress import track
from mezzotint.calibration.readers import Readers
from mezzotint.errors import CalibrationError, PlanError
from mezzotint.models import Call, Graph, layer_input
from mezzotint.plan import Observer, Structure, Tensors
from mezzotint.runtime import operation_of, own_tensors, shape_of
from mezzotint.runtime.composition import input_of
from mezzotint.runtime.layer_tensors import Place, dotted, places

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
    denoiser: nn.Module,
    structures: Mapping[str, tuple[Structure, ...]],
    calls: Sequence[Call],
    *,
    probes: Sequence[Call] = (),
    graph: Graph | None = None,
    known: Mapping[str, Tensors] | None = None,
    label: str = "Structures",
) -> StructureTensors:
    """Run the calls for what the layers' structures need calibrated.

    A structure within another is watched as soon as the outer one's tensors are known, which may
    take further runs of the calls. Layers are judged one by one: a structure that the calls do
    not allow is no error here.

    Args:
        denoiser: the floating model.
        structures: layer → its structures, outermost first.
        calls: recorded calls.
        probes: further calls, of other prompts, for structures that must be the same for every
            prompt.
        graph: of the denoiser; by default it is traced, where structures ask for siblings.
        known: layer → tensors that are calibrated already.
        label: of the progress that is shown.

    Raises:
        ModelError: the graph cannot be traced.
    """
    tensors: dict[str, Tensors] = {}
    refused: dict[str, Refusal] = {}
    watched = []
    readers = Readers(denoiser, calls, graph)
    for name, each in structures.items():
        found = _watched(name, each, readers, (known or {}).get(name, {}))
        if isinstance(found, Refusal):
            refused[name] = found
        elif found is not None:
            watched.append(found)
    todo = [layer for layer in watched if layer.next_round()]
    while todo:
        alike = [layer for layer in todo if layer.same_for_every_prompt]
        _run(denoiser, todo, calls, label)
        _run(denoiser, alike, probes, label)
        todo = [layer for layer in todo if layer.found() and layer.next_round()]
    for layer in watched:
        if layer.refusal is not None:
            refused[layer.name] = layer.refusal
        else:
            tensors[layer.name] = layer.known
    return StructureTensors(tensors, refused)


def _watched(
    name: str, structures: tuple[Structure, ...], readers: Readers, known: Tensors
) -> _Watched | Refusal | None:
    """None where nothing needs calibrating."""
    if not any(structure.observed for structure in structures):
        return None
    layer = readers.denoiser.get_submodule(name)
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        kind = type(layer).__name__
        return Refusal(structures[0].kind, f"it is a {kind}, neither a Linear nor a Conv2d")
    try:
        found = tuple(places(structures, shape_of(layer)))
    except PlanError as cause:
        return Refusal(structures[0].kind, str(cause))
    return _Watched(name, layer, structures, found, readers, dict(known))


def _run(
    denoiser: nn.Module, layers: Collection[_Watched], calls: Sequence[Call], label: str
) -> None:
    if not layers:
        return
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.module.register_forward_hook(layer.observe, with_kwargs=True))
        for call in track(calls, label):
            call.run(denoiser)


@dataclass(eq=False)
class _Watched:
    """One layer, and those of its structures whose turn it is.

    Attributes:
        places: of all its structures; equal ones of several parts are watched together.
        readers: the layer and its siblings, as observers are given them.
        known: name within the layer → calibrated tensor.
    """

    name: str
    module: _Layer
    structures: tuple[Structure, ...]
    places: tuple[Place, ...]
    readers: Readers
    known: dict[str, Tensor]
    refusal: Refusal | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._turns = [
            depth
            for depth, each in enumerate(self.structures)
            if each.observed
            and any(
                dotted(place.path, name) not in self.known
                for place in self.places
                if place.depth == depth
                for name in each.calibrated
            )
        ]
        self._observers: list[tuple[Place, Tensor, Observer]] = []

    @property
    def same_for_every_prompt(self) -> bool:
        """True where what is watched must be the same in all calls."""
        return any(place.structure.same_for_every_prompt for place, _, _ in self._observers)

    def next_round(self) -> bool:
        """Set observers on the next structures; whether there are any."""
        if not self._turns:
            return False
        depth = self._turns.pop(0)
        shape, weight = shape_of(self.module), self.module.weight.detach()
        self._tensors = own_tensors(self.structures[:depth], weight, shape, self.known)
        self._observers = []
        for place in self.places:
            if place.depth == depth:
                among = self.readers.of(self.name, self.structures, place, self._tensors)
                observer = place.structure.observer(among[0], among)
                self._observers.append((place, among[0].weight, observer))
        return True

    def observe(
        self, module: _Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
    ) -> None:
        """A forward hook."""
        shape, given = shape_of(module), layer_input(args, kwargs)
        for place, weight, observer in self._observers:
            if not place.path:
                observer.observe(given, lambda: output)
                continue
            try:
                x = input_of(place.path, given, self.structures, shape, self._tensors)
            except PlanError as cause:
                self.refusal = Refusal(self.structures[0].kind, str(cause))
                return
            observer.observe(x, partial(operation_of(module).apply, x, weight, None))

    def found(self) -> bool:
        """Take what the observers found; whether they found it."""
        if self.refusal is not None:
            return False
        for place, _, observer in self._observers:
            try:
                found = observer.tensors()
            except CalibrationError as cause:
                self.refusal = Refusal(place.structure.kind, str(cause))
                return False
            self.known |= {dotted(place.path, name): each for name, each in found.items()}
        return True
