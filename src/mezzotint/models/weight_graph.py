"""The graph that a predictor of quality reads: weights, and where their results meet.

It stands on the traced data-flow graph of a call. A weight is one node, however often it is used;
an operation that joins what comes from several nodes is one, too; all else passes through. The
arguments of the denoiser are no nodes: what joins a layer's output with them alone passes, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from mezzotint._files import JsonFile, validated
from mezzotint.errors import MezzotintError, ModelError
from mezzotint.models.kinds import Kind
from mezzotint.models.roles import Role

VERSION = 1

ItemT = TypeVar("ItemT", bound=Hashable)

Place = tuple[int, int, int]
"""Place in the denoiser; numbers count from 1, and 0 is none. Of a U-Net: stage (1 down, 2 middle,
3 up), number of the block within the stage, number of the transformer block within that. Of a
transformer: number of the block, 0, 0."""

CombineKind = Literal["add", "multiply", "modulation", "concatenate", "matmul", "other"]
"""Ways of joining tensors, in the words of `NodeKind`."""


@dataclass(frozen=True)
class WeightNode:
    """A weight that has a choice of its own: of a Linear or Conv, or half of one.

    Attributes:
        index: its place among the nodes.
        key: dotted name of the layer; `name/first` and `name/second` for the halves of a layer
            whose input is split.
        layer: dotted name of the layer.
        role: of the layer.
        operation: `linear`, `conv2d`, …
        weights: their number.
        inputs: input features or channels that they multiply.
        outputs: output features or channels.
        place: where the layer stands.
        quantizable: false where no quantized layer can stand for it: a function reads the weight,
            or the layer is of a kind that is not packed.
    """

    index: int
    key: str
    layer: str
    role: Role
    operation: Kind
    weights: int
    inputs: int
    outputs: int
    place: Place
    quantizable: bool = True


@dataclass(frozen=True)
class CombineNode:
    """An operation that joins tensors of different origin.

    Attributes:
        index: its place among the nodes.
        kind: how it joins them.
        name: dotted name of the module that runs it ("" is the denoiser), or of the layer whose
            halves it adds.
        place: where that stands.
    """

    index: int
    kind: CombineKind
    name: str
    place: Place


@dataclass(frozen=True)
class WeightGraph(JsonFile):
    """Weights, operations that join them, and the flow of data between.

    Where a layer runs again on what it has itself had a part in, there is a cycle.

    Attributes:
        nodes: in order of their first execution.
        edges: pairs (source, reader) of indices, each once, ordered by reader, then source.

    Raises:
        ModelError: an index is out of place, a key or an edge comes twice, or a node reads itself.
    """

    error: ClassVar[type[MezzotintError]] = ModelError

    nodes: tuple[WeightNode | CombineNode, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for place, node in enumerate(self.nodes):
            if node.index != place:
                raise ModelError(f"node {place}: its index is {node.index}; number nodes in order")
        for key in _repeated(node.key for node in self.weights):
            raise ModelError(f"key {key!r}: two nodes have it; give each weight a key of its own")
        for edge in _repeated(self.edges):
            raise ModelError(f"edge {list(edge)}: comes twice; leave one out")
        for source, reader in self.edges:
            if not (0 <= source < len(self.nodes) and 0 <= reader < len(self.nodes)):
                raise ModelError(
                    f"edge [{source}, {reader}]: there are {len(self.nodes)} nodes; give indices "
                    "of nodes"
                )
            if source == reader:
                raise ModelError(f"edge [{source}, {reader}]: a node reads itself; leave it out")

    @cached_property
    def weights(self) -> tuple[WeightNode, ...]:
        """The nodes that hold weights."""
        return tuple(node for node in self.nodes if isinstance(node, WeightNode))

    @cached_property
    def combines(self) -> tuple[CombineNode, ...]:
        """The nodes that hold none."""
        return tuple(node for node in self.nodes if isinstance(node, CombineNode))

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each node the indices of those that it reads."""
        return _neighbours(len(self.nodes), ((reader, source) for source, reader in self.edges))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """For each node the indices of those that read it."""
        return _neighbours(len(self.nodes), self.edges)

    def ancestors(self, index: int, hops: int) -> frozenset[int]:
        """The node and all from which data gets to it over at most that many edges."""
        return frozenset(distances(self.predecessors, index, hops))

    def descendants(self, index: int, hops: int) -> dict[int, int]:
        """Number of edges to each node within reach of at most that many; 0 to the node itself."""
        return distances(self.successors, index, hops)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        nodes = [
            {"type": "weight" if isinstance(node, WeightNode) else "combine"} | asdict(node)
            for node in self.nodes
        ]
        return {"version": VERSION, "nodes": nodes, "edges": [list(edge) for edge in self.edges]}

    @classmethod
    def from_dict(cls, value: Any, source: str = "weight graph") -> WeightGraph:
        """Validate and build.

        Raises:
            ModelError: naming `source`, the field at fault and what was expected.
        """
        model = validated(_GraphModel, value, source, ModelError)
        try:
            return cls(tuple(node.value() for node in model.nodes), model.edges)
        except ModelError as cause:
            raise ModelError(f"{source}: {cause}") from cause


def distances(neighbours: tuple[tuple[int, ...], ...], start: int, hops: int) -> dict[int, int]:
    """Number of edges from `start` to each node within reach of at most `hops` of them."""
    found, front = {start: 0}, [start]
    for distance in range(1, hops + 1):
        new = (each for node in front for each in neighbours[node] if each not in found)
        front = [*dict.fromkeys(new)]  # many paths lead to one node
        found |= dict.fromkeys(front, distance)
    return found


def _repeated(values: Iterable[ItemT]) -> list[ItemT]:
    return [value for value, count in Counter(values).items() if count > 1]


def _neighbours(count: int, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    found: list[list[int]] = [[] for _ in range(count)]
    for node, neighbour in pairs:
        found[node].append(neighbour)
    return tuple(map(tuple, found))


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _WeightModel(_StrictModel):
    type: Literal["weight"]
    index: NonNegativeInt
    key: str
    layer: str
    role: Role
    operation: Kind
    weights: PositiveInt
    inputs: PositiveInt
    outputs: PositiveInt
    place: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
    quantizable: bool

    def value(self) -> WeightNode:
        return WeightNode(**self.model_dump(exclude={"type"}))


class _CombineModel(_StrictModel):
    type: Literal["combine"]
    index: NonNegativeInt
    kind: CombineKind
    name: str
    place: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]

    def value(self) -> CombineNode:
        return CombineNode(**self.model_dump(exclude={"type"}))


class _GraphModel(_StrictModel):
    version: Literal[1]
    nodes: tuple[Annotated[_WeightModel | _CombineModel, Field(discriminator="type")], ...]
    edges: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
