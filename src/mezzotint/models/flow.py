"""Following tensors through torch's functions: every tensor carries the node that it comes from.

A `TorchFunctionMode` sees the functions that a model's code calls, so that attention is one
operation on every device; a `TorchDispatchMode` would see what each device makes of it instead.
Layers are told by module hooks, and what happens inside a layer is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
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
from mezzotint.models.norm_outputs import Norms, norm_viewed
from mezzotint.models.origins import CONSTANT, Origin, Origins, Read
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
        self._norms = Norms(denoiser)
        self._origins = Origins()
        self._running: list[tuple[str, list[Read]]] = []
        """The modules that are being run, outermost first, and what each was given."""
        self._left: dict[str, None] = {}
        """Modules that hand values out of torch, in order."""
        self._aside = 0
        """Above 0 while nothing is to be followed: inside layers, and in the hooks below."""
        for tensor in (*denoiser.parameters(), *denoiser.buffers()):
            self._origins.note(tensor, CONSTANT)
        for name, layer in reversed([*weight_layers(denoiser)]):  # tied weights are the first's
            weight = weight_parameter(layer)
            if weight is not None:
                self._origins.note(weight, Origin(weights=(name,)))

    def argument(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Add an argument of the denoiser, whose tensors are one node together."""
        node = self.builder.append(Node("input", name, output=tuple(tensors[0].shape)))
        for tensor in tensors:
            self._origins.note(tensor, Origin(node))

    @property
    def module(self) -> str:
        """Name of the innermost module that is being run; "" is the denoiser itself."""
        return self._running[-1][0] if self._running else ""

    def sole_readers(self, output: Origin) -> dict[str, tuple[str, ...]]:
        """Norm → the layers that alone read its output, in a call of that output."""
        if output.norm is not None:
            self._norms.share(output.norm)
        return self._norms.readers(self.builder.functional)

    @property
    def left(self) -> tuple[str, ...]:
        """Modules that hand what layers compute out of torch, and go on without it."""
        return tuple(self._left)

    def origin(self, tensor: Tensor) -> Origin:
        """Present origin of `tensor`."""
        return self._origins.of(tensor)

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
        reads = self._origins.reads((args, kwargs))
        result = func(*args, **kwargs)
        known = {id(read.tensor) for read in reads}
        results = [tensor for tensor in tensors_in(result) if id(tensor) not in known]
        written = [read for read in reads if read.written]
        name, viewed = function_name(func), False
        if name in ITEMWISE:
            for tensor, read in zip(tensors_in(result), reads, strict=True):
                self._origins.note(tensor, Origin(read.origin.node, read.origin.weights))
        elif written or results:
            viewed = self._made(partial(func, *args, **kwargs), reads, results)
        elif name in LEAVING and not isinstance(result, Tensor) and any(map(self._computed, reads)):
            self._left[self.module] = None
        if not viewed and (written or results or name in LEAVING):
            self._norms.called(name, self.module, reads)
        return result

    def _made(self, call: partial[Any], reads: list[Read], results: list[Tensor]) -> bool:
        """Note the origin of tensors that a function made or wrote to.

        Args:
            call: the function, with what it was given.
            reads: its tensors.
            results: what it made.

        Returns:
            True where its result is a view of what a norm gave.
        """
        name, written = function_name(call.func), [read for read in reads if read.written]
        first = results[0] if results else written[0].tensor
        if name in ATTENTION:
            attention = AttentionCall.of(name, call.args, call.keywords)
            origin = self._attention(name, attention, reads, tuple(first.shape))
        else:
            origin = self._result(name, reads, tuple(first.shape))
        for read in written:
            self._write(read, origin)
        if name in CONCATENATING:
            sections = joined_sizes(call.args, call.keywords, first)
            origin = Origin(origin.node, origin.weights, sections)
        if len(results) == 1 and reads and not written:
            origin = replace(origin, norm=norm_viewed(call, reads[0], first))
        for tensor in results:
            self._origins.note(tensor, origin)
        return origin.norm is not None

    def _write(self, read: Read, origin: Origin) -> None:
        """Note that a tensor, and what it is a view of, now hold values of that origin."""
        self._origins.note(read.tensor, origin)
        if read.whole is None:
            return
        whole, before = read.whole
        if read.tensor.numel() < whole.numel():
            shape = tuple(whole.shape)
            origin = self._join("write", "write", [(shape, before), (read.shape, origin)], shape)
        self._origins.note(whole, origin)

    def _result(self, name: str, reads: Sequence[Read], shape: Shape) -> Origin:
        """The origin of what the function of that name made of `reads`."""
        values = [(read.shape, read.origin) for read in values_read(name, reads)]
        if name not in ACCUMULATING:
            return self._join(join_kind(name), name, values, shape)
        product = self._join(ACCUMULATING[name], name, values[1:], shape)
        return self._join("add", name, [values[0], (shape, product)], shape)

    def _attention(
        self, name: str, call: AttentionCall, reads: Sequence[Read], shape: Shape
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

    def _computed(self, read: Read) -> bool:
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
        self._running.append((name, self._origins.reads((args, kwargs))))
        if name not in self._kinds:
            self._aside -= 1

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Modules whose inside cannot be seen, such as compiled ones, count as one operation."""
        if self._aside:
            self._running.pop()
            return
        self._aside += 1
        unseen = [x for x in tensors_in(output) if not self._origins.met(x)]
        if unseen:
            name, reads = self._running[-1]
            inside = f"{name}." if name else ""
            for left in [each for each in self._left if f"{each}.".startswith(inside)]:
                del self._left[left]
            origin = self._result(type(module).__name__, reads, tuple(unseen[0].shape))
            for tensor in unseen:
                self._origins.note(tensor, origin)
            self._norms.read_elsewhere(reads)
        name, _ = self._running.pop()
        if isinstance(output, Tensor):
            norm = self._norms.left(name, output)
            if norm is not None:
                self._origins.note(output, replace(self._origins.of(output), norm=norm))
        self._aside -= 1

    def _leave_layer(self, layer: WeightLayer, args: Any, output: Any) -> None:
        name, reads = self._running.pop()
        x, y = reads[0], next(tensors_in(output))
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
            tensor=self._origins.number(x),
        )
        self._norms.read_by(name, channel_dim(layer), reads)
        origin = Origin(self.builder.append(node))
        for tensor in tensors_in(output):
            self._origins.note(tensor, origin)
        self._aside -= 1
