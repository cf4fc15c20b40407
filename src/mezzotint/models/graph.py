"""The data-flow graph of a denoiser: its layers, where tensors meet, and which feeds which.

`trace_graph` makes one from a single call. A residual block of a U-Net, for example, becomes

    conv1 ─▶ add ─▶ conv2 ─▶ add        the first `add` takes the time embedding in, the second the
              ▲               ▲         shortcut; the norms and activations between are no nodes,
    time_emb_proj       conv_shortcut   for they compute on one tensor only.

Nodes stand in the order in which the call ran them, and read earlier nodes only: the graph has no
cycles, and going through `nodes` from first to last meets every source before its readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from mezzotint._files import JsonFile, validated
from mezzotint.errors import MezzotintError, ModelError

VERSION = 1

Shape = tuple[int, ...]

NodeKind = Literal[
    "input", "layer", "add", "multiply", "modulation", "concatenate", "matmul", "other"
]
"""`input`: an argument of the denoiser. `layer`: one run of a Linear or Conv. The others join
tensors of different origin: `add` (and subtract), `multiply` (and divide), `concatenate` (also
stacking, and writing parts into one tensor), `matmul` (also einsum; attention is two of them, of
queries by keys and of these scores by values), `modulation` (scale and shift by the same source:
adaptive norms, rotary embeddings), `other` (anything else)."""


@dataclass(frozen=True)
class NodeInput:
    """One tensor that a node reads.

    Attributes:
        shape: its shape.
        source: index of the node that it comes from, by way of views, norms, activations and
            whatever else takes one tensor; None for constants, such as parameters and tables.
    """

    shape: Shape
    source: int | None


@dataclass(frozen=True)
class Node:
    """A layer's run, an operation that joins tensors, or an argument of the denoiser.

    Attributes:
        kind: see `NodeKind`.
        name: dotted name of the layer; for a join, of the innermost module whose code runs it (""
            is the denoiser itself); for an input, of the argument (`added_cond_kwargs.time_ids`).
        operation: `linear`, `conv2d`, … for a layer; torch's name of the function for a join.
        inputs: the tensors that it reads, in order of the arguments; of a layer, the first tensor.
        output: shape of what comes out.
        macs: multiply-accumulates of a layer's run, all samples together; 0 for other nodes.
        sections: channels of each part, if the layer reads a concatenation along its input
            channels with nothing between; else empty.
        functional: the layer is not run: a function reads its weight. `inputs` are then all
            tensors that meet the weight there, and `macs` is 0, since nobody can tell how often.
        tensor: number of the tensor that a layer's run reads: runs of one number read the very same
            one, with nothing written to it between. None for other nodes.
    """

    kind: NodeKind
    name: str
    operation: str = ""
    inputs: tuple[NodeInput, ...] = ()
    output: Shape = ()
    macs: int = 0
    sections: tuple[int, ...] = ()
    functional: bool = False
    tensor: int | None = None

    @property
    def sources(self) -> tuple[int, ...]:
        """Indices of the nodes that it reads, each once, in order of the arguments."""
        found = (read.source for read in self.inputs if read.source is not None)
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Graph(JsonFile):
    """All nodes of one call.

    A layer that runs twice has two nodes of the same name.

    Attributes:
        nodes: in order of execution; an index into it names a node.
        output: index of the node that the denoiser's output comes from; None if the output is
            constant.
        idle: layers without a node, in order of definition: the call neither runs them nor reads
            their weights.
        tied: layer → the first layer that has the very same weight tensor.
        left: modules that hand what layers compute out of torch, as Python numbers or NumPy arrays;
            what they make of it counts as constant. "" is the denoiser itself.
        norms: norm with a weight for each channel → layers that read its output and nothing else,
            by way of views at the most, where nothing else reads it; in order of execution.

    Raises:
        ModelError: a node reads itself, a later node or one that there is not.
    """

    error: ClassVar[type[MezzotintError]] = ModelError

    nodes: tuple[Node, ...]
    output: int | None = None
    idle: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    norms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            for source in node.sources:
                if not 0 <= source < index:
                    raise ModelError(
                        f"node {index} ({node.kind} {node.name}) reads node {source}; give the "
                        "index of an earlier node"
                    )
        if self.output is not None and not 0 <= self.output < len(self.nodes):
            raise ModelError(
                f"output: is node {self.output}, but there are {len(self.nodes)} nodes"
            )

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Pairs (source, reader) of indices, each once, ordered by reader."""
        return tuple((s, index) for index, node in enumerate(self.nodes) for s in node.sources)

    @property
    def runs(self) -> tuple[Node, ...]:
        """The nodes of layers that are run, in order of execution."""
        return tuple(node for node in self.nodes if node.kind == "layer" and not node.functional)

    @property
    def siblings(self) -> dict[str, tuple[str, ...]]:
        """Layer → the layers that read the very same tensors with the same operation.

        The layer itself is among them; all are in order of execution. Such are the projections to
        queries, keys and values of self-attention.
        """
        reads: dict[str, set[int | None]] = {}
        operations = {node.name: node.operation for node in self.runs}
        for node in self.runs:
            reads.setdefault(node.name, set()).add(node.tensor)
        groups: dict[tuple[object, ...], list[str]] = {}
        for name, tensors in reads.items():
            told = frozenset(tensors) if None not in tensors else name
            groups.setdefault((operations[name], told), []).append(name)
        return {name: tuple(group) for group in groups.values() for name in group}

    @property
    def norm_siblings(self) -> dict[str, tuple[str, ...]]:
        """The `norms` whose readers are all siblings, which share one smoothed input."""
        siblings = self.siblings
        return {norm: each for norm, each in self.norms.items() if siblings[each[0]] == each}

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return (
            {"version": VERSION}
            | asdict(self)
            | {"tied": dict(self.tied), "norms": dict(self.norms)}
        )

    @classmethod
    def from_dict(cls, value: Any, source: str = "graph") -> Graph:
        """Validate and build.

        Raises:
            ModelError: naming `source`, the field at fault and what was expected.
        """
        model = validated(_GraphModel, value, source, ModelError)
        try:
            return cls(
                nodes=tuple(node.value() for node in model.nodes),
                output=model.output,
                idle=model.idle,
                tied=model.tied,
                left=model.left,
                norms=model.norms,
            )
        except ModelError as cause:
            raise ModelError(f"{source}: {cause}") from cause


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _InputModel(_StrictModel):
    shape: tuple[NonNegativeInt, ...]
    source: NonNegativeInt | None


class _NodeModel(_StrictModel):
    kind: NodeKind
    name: str
    operation: str
    inputs: tuple[_InputModel, ...]
    output: tuple[NonNegativeInt, ...]
    macs: NonNegativeInt
    sections: tuple[NonNegativeInt, ...]
    functional: bool
    tensor: NonNegativeInt | None = None  # older files have none

    def value(self) -> Node:
        inputs = tuple(NodeInput(read.shape, read.source) for read in self.inputs)
        return Node(**{**dict(self), "inputs": inputs})


class _GraphModel(_StrictModel):
    version: Literal[1]
    nodes: tuple[_NodeModel, ...]
    output: NonNegativeInt | None
    idle: tuple[str, ...]
    tied: dict[str, str]
    left: tuple[str, ...] = ()  # older files have none
    norms: dict[str, tuple[str, ...]] = {}  # likewise
