"""Following tensors through torch's functions: every tensor carries the node that it comes from.

A `TorchFunctionMode` sees the functions that a model's code calls, so that attention is one
operation on every device; a `TorchDispatchMode` would see what each device makes of it instead.
Layers are told by module hooks, and what happens inside a layer is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

from mezzotint.models.attention_functions import ATTENTION, AttentionCall
from mezzotint.models.graph import Node, NodeInput, Shape
from mezzotint.models.graph_builder import GraphBuilder, Join
from mezzotint.models.kinds import (
    WeightLayer,
    channel_dim,
    kind_of,
    multiply_accumulates,
    weight_layers,
    weight_parameter,
)
from mezzotint.models.torch_functions import (
    ACCUMULATING,
    CONCATENATING,
    ITEMWISE,
    LEAVING,
    function_name,
    join_kind,
    joined_sizes,
    tensors_in,
    values_read,
)


@dataclass(frozen=True)
class Origin:
    """Origin of a tensor in the traced call.

    Attributes:
        node: index of its node; None for constants.
        weights: layers whose weight it is made of, if it is constant.
        sections: dimension and sizes of the parts, if it is the result of a concatenation.
    """

    node: int | None = None
    weights: tuple[str, ...] = ()
    sections: tuple[int, tuple[int, ...]] | None = None


_CONSTANT = Origin()


@dataclass(frozen=True)
class _Record:
    """The origin of a tensor at one version; torch counts up when a tensor is written to."""

    origin: Origin
    version: int


@dataclass(frozen=True, eq=False)
class _Read:
    """One tensor that a function or module is given, as it was then.

    `whole` is the tensor that it is a view of, and the origin of that.
    """

    tensor: Tensor
    origin: Origin
    version: int
    whole: tuple[Tensor, Origin] | None

    @property
    def shape(self) -> Shape:
        return tuple(self.tensor.shape)

    @property
    def written(self) -> bool:
        """True if the tensor has been written to since."""
        return _version(self.tensor) != self.version


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Flow(TorchFunctionMode):
    """Follows every tensor through the functions and modules that take it, while it is active.

    Attributes:
        builder: the graph, as far as it has been followed.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.builder = GraphBuilder()
        self._denoiser = denoiser
        self._kinds = {name: kind_of(layer) for name, layer in weight_layers(denoiser)}
        self._records: MutableMapping[Tensor, _Record] = WeakTensorKeyDictionary()
        self._numbers: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        """Numbers of tensors that are no views, none of which is given twice."""
        self._counter = count()
        self._seen: dict[tuple[Any, ...], int] = {}
        """Number, version, and place of a view within it → number of what a layer reads."""
        self._running: list[tuple[str, list[_Read]]] = []
        """The modules that are being run, outermost first, and what each was given."""
        self._left: dict[str, None] = {}
        """Modules that hand values out of torch, in order."""
        self._aside = 0
        """Above 0 while nothing is to be followed: inside layers, and in the hooks below."""
        for tensor in (*denoiser.parameters(), *denoiser.buffers()):
            self._note(tensor, _CONSTANT)
        for name, layer in reversed([*weight_layers(denoiser)]):  # tied weights are the first's
            weight = weight_parameter(layer)
            if weight is not None:
                self._note(weight, Origin(weights=(name,)))

    def argument(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Add an argument of the denoiser, whose tensors are one node together."""
        node = self.builder.append(Node("input", name, output=tuple(tensors[0].shape)))
        for tensor in tensors:
            self._note(tensor, Origin(node))

    @property
    def module(self) -> str:
        """Name of the innermost module that is being run; "" is the denoiser itself."""
        return self._running[-1][0] if self._running else ""

    @property
    def left(self) -> tuple[str, ...]:
        """Modules that hand what layers compute out of torch, and go on without it."""
        return tuple(self._left)

    def origin(self, tensor: Tensor) -> Origin:
        """Present origin of `tensor`."""
        record = self._records.get(tensor)
        if record is not None and record.version == _version(tensor):
            return record.origin
        # A view that nobody has met yet, or one that has been written to by way of another.
        if tensor._base is not None:
            return self.origin(tensor._base)
        return _CONSTANT if record is None else record.origin

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow functions and modules for as long as the context lasts."""
        with ExitStack() as stack:
            for name, module in self._denoiser.named_modules():
                enter = partial(self._enter, name)
                leave = self._leave_layer if name in self._kinds else self._leave
                for hook in (
                    module.register_forward_pre_hook(enter, with_kwargs=True),
                    module.register_forward_hook(leave),
                ):
                    stack.callback(hook.remove)
            stack.enter_context(self)
            yield

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._aside:
            return func(*args, **kwargs)
        reads = self._reads((args, kwargs))
        result = func(*args, **kwargs)
        known = {id(read.tensor) for read in reads}
        results = [tensor for tensor in tensors_in(result) if id(tensor) not in known]
        written = [read for read in reads if read.written]
        name = function_name(func)
        if name in ITEMWISE:
            for tensor, read in zip(tensors_in(result), reads, strict=True):
                self._note(tensor, Origin(read.origin.node, read.origin.weights))
        elif written or results:
            first = results[0] if results else written[0].tensor
            if name in ATTENTION:
                call = AttentionCall.of(name, args, kwargs)
                origin = self._attention(name, call, reads, tuple(first.shape))
            else:
                origin = self._result(name, reads, tuple(first.shape))
            for read in written:
                self._write(read, origin)
            if name in CONCATENATING:
                sections = joined_sizes(args, kwargs, first)
                origin = Origin(origin.node, origin.weights, sections)
            for tensor in results:
                self._note(tensor, origin)
        elif name in LEAVING and not isinstance(result, Tensor) and any(map(self._computed, reads)):
            self._left[self.module] = None
        return result

    def _reads(self, values: Any) -> list[_Read]:
        return [
            _Read(
                tensor,
                self.origin(tensor),
                _version(tensor),
                None if tensor._base is None else (tensor._base, self.origin(tensor._base)),
            )
            for tensor in tensors_in(values)
        ]

    def _note(self, tensor: Tensor, origin: Origin) -> None:
        self._records[tensor] = _Record(origin, _version(tensor))

    def _write(self, read: _Read, origin: Origin) -> None:
        """Note that a tensor, and what it is a view of, now hold values of that origin."""
        self._note(read.tensor, origin)
        if read.whole is None:
            return
        whole, before = read.whole
        if read.tensor.numel() < whole.numel():
            shape = tuple(whole.shape)
            origin = self._join("write", "write", [(shape, before), (read.shape, origin)], shape)
        self._note(whole, origin)

    def _result(self, name: str, reads: Sequence[_Read], shape: Shape) -> Origin:
        """The origin of what the function of that name made of `reads`."""
        values = [(read.shape, read.origin) for read in values_read(name, reads)]
        if name not in ACCUMULATING:
            return self._join(join_kind(name), name, values, shape)
        product = self._join(ACCUMULATING[name], name, values[1:], shape)
        return self._join("add", name, [values[0], (shape, product)], shape)

    def _attention(
        self, name: str, call: AttentionCall, reads: Sequence[_Read], shape: Shape
    ) -> Origin:
        """The origin of attention: queries by keys, then these scores by values.

        Projections within the function are layers, where it is given their weights.
        """
        known = {id(read.tensor): (read.shape, read.origin) for read in reads}
        given = {key: known[id(tensor)] for key, tensor in call.tensors.items()}

        def product(shape: Shape, *factors: tuple[Shape, Origin]) -> tuple[Shape, Origin]:
            return shape, self._join("matmul", name, factors, shape)

        def among(*keys: str) -> list[tuple[Shape, Origin]]:
            return [given[key] for key in keys if key in given]

        query, key, value = (
            product(given[each][0], given[each], *among(f"{each[0]}_proj_weight", "in_proj_weight"))
            for each in ("query", "key", "value")
        )
        scores = product(call.scores, query, key, *among("attn_mask", "key_padding_mask"))
        attended = product(shape, scores, value)
        return product(shape, attended, *among("out_proj_weight"))[1]

    def _computed(self, read: _Read) -> bool:
        """True if a layer has a part in the values of a tensor, and they are no indices."""
        node = read.origin.node
        floating = read.tensor.is_floating_point()
        return floating and node is not None and self.builder.computed(node)

    def _join(
        self, kind: Join, name: str, values: Sequence[tuple[Shape, Origin]], shape: Shape
    ) -> Origin:
        """The origin of a tensor of that shape, which a function made of `values`.

        What meets the weight of a layer outside the layer passes through the layer's node.
        """
        weights = tuple(dict.fromkeys(w for _, origin in values for w in origin.weights))
        inputs = tuple(NodeInput(s, origin.node) for s, origin in values if not origin.weights)
        if all(read.source is None for read in inputs):
            return Origin(weights=weights)
        if weights:
            layers = (
                Node("layer", w, self._kinds[w], inputs, shape, functional=True) for w in weights
            )
            inputs = tuple(NodeInput(shape, self.builder.append(layer)) for layer in layers)
        return Origin(self.builder.join(kind, Node("other", self.module, name, inputs, shape)))

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._aside += 1
        self._running.append((name, self._reads((args, kwargs))))
        if name not in self._kinds:
            self._aside -= 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Modules whose inside cannot be seen, such as compiled ones, count as one operation."""
        if self._aside:
            self._running.pop()
            return
        self._aside += 1
        unseen = [x for x in tensors_in(output) if x not in self._records and x._base is None]
        if unseen:
            name, reads = self._running[-1]
            inside = f"{name}." if name else ""
            for left in [each for each in self._left if f"{each}.".startswith(inside)]:
                del self._left[left]
            origin = self._result(type(module).__name__, reads, tuple(unseen[0].shape))
            for tensor in unseen:
                self._note(tensor, origin)
        self._running.pop()
        self._aside -= 1

    def _number(self, read: _Read) -> int:
        """The same for the same values of the same tensor: a new number for every other."""
        whole = read.tensor if read.whole is None else read.whole[0]
        if whole not in self._numbers:
            self._numbers[whole] = next(self._counter)
        number, tensor = self._numbers[whole], read.tensor
        place = tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
        return self._seen.setdefault((number, read.version, *place), len(self._seen))

    def _leave_layer(self, layer: WeightLayer, args: Any, output: Any) -> None:
        name, (x, *_) = self._running.pop()
        y = next(tensors_in(output))
        dim, sections = x.origin.sections or (-1, ())
        apart = len(sections) > 1 and dim == x.tensor.ndim + channel_dim(layer)
        node = Node(
            kind="layer",
            name=name,
            operation=self._kinds[name],
            inputs=(NodeInput(x.shape, x.origin.node),),
            output=tuple(y.shape),
            macs=multiply_accumulates(layer, x.tensor, y),
            sections=sections if apart else (),
            tensor=self._number(x),
        )
        origin = Origin(self.builder.append(node))
        for tensor in tensors_in(output):
            self._note(tensor, origin)
        self._aside -= 1
