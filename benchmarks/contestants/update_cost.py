"""Memory and work of one update of training, line by line, from shapes alone.

The student is put together of training's own parts on the meta device, where tensors have shapes
and no values: an update is run and differentiated, what autograd keeps is noted, and products are
counted. The features of both models are compared by their values (`feature_loss="l2"`): relations
are computed again in the backward pass, a thousand rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from mezzotint.formats import AffineGrid, parse_activation_format
from mezzotint.models import Call, layers_in, trace_graph
from mezzotint.models.patching import patched
from mezzotint.recipes.mpqdm.exempt_layers import exemptions
from mezzotint.runtime import Smoothing, operation_of, shape_of
from mezzotint.runtime.composition import joined_output, part_weights
from mezzotint.training.learned_grid import LearnedGrid
from mezzotint.training.learned_inputs import LearnedInput
from mezzotint.training.low_rank import LowRank, Weight
from mezzotint.training.options import Training
from mezzotint.training.relation import capturing, feature_distance, output_norm

FLOAT32 = 4
"""Bytes of all that is trained, of its gradients, and of each of AdamW's two moments."""

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Update:
    """One update of `mpqdm` as its options say.

    Attributes:
        weight_bits: of all layers but the exceptions; one scale and zero point per channel.
        act_bits: of their inputs, with a scale for each step.
        steps: of the sampler.
        rank: of LoRA.
        window: denoising steps of an update.
    """

    weight_bits: int = 2
    act_bits: int = 4
    steps: int = 20
    rank: int = Training.rank
    window: int = Training.window


@dataclass(frozen=True)
class Cost:
    """Bytes that an update holds at its peak, and multiply-accumulates that it computes.

    Attributes:
        floating_weights: of the denoiser, which is its own teacher.
        lora: both factors of all layers.
        quantizers: log Δ and z of weights, and of inputs at each step.
        gradients: of LoRA and quantizers.
        moments: of AdamW for the same.
        rounded_weights: Ŵ, and what their rounding keeps for its backward pass.
        rounded_gradients: of Ŵ, which all steps of a window add up to.
        activations: kept for the backward pass, of all steps of a window.
        activations_again: the same where blocks are computed again: their inputs, what is between
            them, and one block's activations.
        teacher_macs: of the floating model's runs.
        forward_macs: of the student's runs, and of B·A.
        backward_macs: of the backward pass.
        again_macs: of what is computed again.
    """

    floating_weights: int
    lora: int
    quantizers: int
    gradients: int
    moments: int
    rounded_weights: int
    rounded_gradients: int
    activations: int
    activations_again: int
    teacher_macs: int
    forward_macs: int
    backward_macs: int
    again_macs: int

    @property
    def state(self) -> int:
        """Bytes that are there whatever the batch."""
        own = [each.name for each in fields(self) if not each.name.endswith("macs")]
        return sum(getattr(self, name) for name in own if not name.startswith("activations"))

    def peak(self, *, again: bool) -> int:
        """Bytes at the peak, with blocks computed again or not."""
        return self.state + (self.activations_again if again else self.activations)

    def macs(self, *, again: bool) -> int:
        """Multiply-accumulates of an update, likewise."""
        usual = self.teacher_macs + self.forward_macs + self.backward_macs
        return usual + (self.again_macs if again else 0)


class ShapedLayer:
    """A student's layer without values: a smoothed input, scales by step, LoRA inside rounding."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, update: Update) -> None:
        """Make the student of a layer on the meta device."""
        self.layer, self.shape, self.operation = layer, shape_of(layer), operation_of(layer)
        out, columns = layer.weight.shape[0], layer.weight[0].numel()

        def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.ones(sizes, dtype=dtype, device="meta")

        lora = LowRank(layer.weight, update.rank, torch.Generator())
        self.weight = Weight(layer.weight, trained=False, lora=lora)
        grid = AffineGrid(update.weight_bits, empty(out, 1), empty(out, 1), (out, columns), columns)
        self.grid = LearnedGrid(grid)
        activation = parse_activation_format(f"uint{update.act_bits}/step")
        assert activation is not None
        steps = update.steps
        self.input = LearnedInput(activation, empty(steps), empty(steps), empty(steps))
        self.structures = (Smoothing(),)
        self.tensors = {"exponent": empty(self.shape.in_channels, dtype=torch.int8)}

    @property
    def quantizers(self) -> list[nn.Parameter]:
        """All that is learned but LoRA."""
        return [*self.grid.parameters(), *self.input.parameters()]

    @property
    def lora(self) -> list[nn.Parameter]:
        """Both factors."""
        return [*self.weight.parameters()]

    def rounded(self) -> Tensor:
        """Ŵ, as `StudentLayer.rounded_weights` computes it."""
        (part,) = part_weights(self.weight(), self.structures, self.shape, self.tensors)
        four = len(self.shape.weight) == 4
        layout = torch.channels_last if four else torch.contiguous_format
        return self.grid(part).contiguous(memory_format=layout)

    def output(self, weight: Tensor, input: Tensor) -> Tensor:  # noqa: A002  (as of torch)
        """The layer's output of an input, as `StudentLayer.output` computes it."""

        def part(x: Tensor, bias: Tensor | None) -> Tensor:
            rounded = self.input(x, lambda: torch.ones(1, device="meta"))
            return self.operation.apply(rounded, weight.to(x.dtype), bias)

        bias = self.layer.bias
        return joined_output(input, [part], bias, self.structures, self.shape, self.tensors)


@dataclass(eq=False)
class Kept:
    """Storages that autograd keeps while it is watched, each once.

    Attributes:
        known: storages that count elsewhere, such as those of parameters.
        outside: of blocks, and of all else.
        inside: of each block that could be computed again.
        inputs: of these blocks.
        again_flops: of these blocks.
    """

    known: set[int]
    outside: dict[int, int] = field(default_factory=dict)
    inside: list[dict[int, int]] = field(default_factory=list)
    inputs: dict[int, int] = field(default_factory=dict)
    again_flops: int = 0
    held: list[Tensor] = field(default_factory=list)
    """Tensors, so that no storage is given a number that another had."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note all that is kept meanwhile."""
        self._now = self.outside

        def pack(tensor: Tensor) -> Tensor:
            self.note(tensor, self._now)
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield

    def note(self, tensor: Tensor, place: dict[int, int]) -> None:
        """Note one tensor."""
        key = storage_key(tensor)
        if key not in self.known:
            place[key] = tensor.untyped_storage().nbytes()
            self.held.append(tensor)

    def block(self, flops: Callable[[], int], module: Any, *args: Any) -> Any:
        """Run a block that could be computed again."""
        if self._now is not self.outside:
            return module(*args)
        for each in args:
            if isinstance(each, Tensor):
                self.note(each, self.inputs)
        before, self._now = flops(), {}
        try:
            return module(*args)
        finally:
            self.inside.append(self._now)
            self._now = self.outside
            self.again_flops += flops() - before

    @property
    def all_bytes(self) -> int:
        """Bytes of all that is kept."""
        everything = dict(self.outside)
        for each in self.inside:
            everything |= each
        return sum(everything.values())

    @property
    def again_bytes(self) -> int:
        """Bytes where blocks are computed again, one at a time."""
        always = self.outside | self.inputs
        blocks = (sum(size for key, size in each.items() if key not in always)
                  for each in self.inside)  # fmt: skip
        return sum(always.values()) + max(blocks, default=0)


def trained_layers(denoiser: nn.Module, call: Call) -> list[str]:
    """The layers that are no exception of `mpqdm`."""
    layers = [each for each in layers_in(denoiser, trace_graph(denoiser, call)) if each.supported]
    exempt = exemptions(layers, "floating", inputs=True)
    return [layer.name for layer in layers if layer.name not in exempt]


def update_cost(
    denoiser: nn.Module, call: Call, update: Update, names: Iterable[str] | None = None
) -> Cost:
    """The cost of an update.

    Args:
        denoiser: floating, on the meta device, in the dtype that it computes in.
        call: of it, of both halves of guidance, on the meta device.
        update: what is trained, and on how many steps.
        names: layers that are trained; those that are no exception of `mpqdm` by default.
    """
    denoiser.requires_grad_(False)
    chosen = trained_layers(denoiser, call) if names is None else names
    layers = {name: ShapedLayer(_linear_or_conv(denoiser, name), update) for name in chosen}
    norm = output_norm(denoiser, call)
    counter = FlopCounterMode(
        display=False,
        custom_mapping=FLASH_OPERATIONS,
    )
    lora = [each for layer in layers.values() for each in layer.lora]
    quantizers = [each for layer in layers.values() for each in layer.quantizers]
    floating = [*denoiser.parameters(), *denoiser.buffers()]
    parameters = {storage_key(each) for each in (*lora, *quantizers, *floating)}
    with counter, _flash_attention():
        weights, rounding = _rounded(layers, parameters)
        kept = Kept(parameters | rounding.keys())
        teacher, loss = _window(denoiser, call, update, (layers, weights, norm), kept, counter)
        forward = counter.get_total_flops() - teacher
        loss.backward()  # type: ignore[no-untyped-call]
        backward = counter.get_total_flops() - teacher - forward
    learned = _bytes([*lora, *quantizers])
    return Cost(
        floating_weights=sum(each.numel() * each.element_size() for each in floating),
        lora=_bytes(lora),
        quantizers=_bytes(quantizers),
        gradients=learned,
        moments=2 * learned,
        rounded_weights=sum(rounding.values()),
        rounded_gradients=_bytes(weights.values()),
        activations=kept.all_bytes,
        activations_again=kept.again_bytes,
        teacher_macs=teacher // 2,
        forward_macs=forward // 2,
        backward_macs=backward // 2,
        again_macs=kept.again_flops // 2,
    )


def _rounded(
    layers: Mapping[str, ShapedLayer], parameters: set[int]
) -> tuple[dict[str, Tensor], dict[int, int]]:
    """Ŵ of all layers, and the storages that they and their rounding take."""
    kept = Kept(parameters)
    with kept.watching():
        weights = {name: layer.rounded() for name, layer in layers.items()}
    for each in weights.values():
        kept.note(each, kept.outside)
    return weights, kept.outside


def _window(
    denoiser: nn.Module,
    call: Call,
    update: Update,
    student: tuple[Mapping[str, ShapedLayer], Mapping[str, Tensor], nn.Module],
    kept: Kept,
    counter: FlopCounterMode,
) -> tuple[int, Tensor]:
    """Run both models at all steps; the teacher's operations, and what is lost."""
    layers, weights, norm = student
    forwards = {each.layer: partial(each.output, weights[n]) for n, each in layers.items()}
    teacher, losses = 0, []
    features: tuple[list[Tensor], list[Tensor]] = [], []
    for _ in range(update.window):
        before = counter.get_total_flops()
        with torch.no_grad(), capturing(norm) as theirs:
            y = call.run(denoiser)
        teacher += counter.get_total_flops() - before
        with kept.watching(), patched(forwards), _blocks(denoiser, kept, counter):
            with capturing(norm) as ours:
                found = call.run(denoiser)
            losses.append((y - found).square().sum())
        features[0].extend(theirs)
        features[1].extend(ours)
    with kept.watching():
        loss = torch.stack(losses).sum() + feature_distance(*features)
    return teacher, loss


@contextmanager
def _blocks(denoiser: nn.Module, kept: Kept, counter: FlopCounterMode) -> Iterator[None]:
    """Let blocks be told apart that gradient checkpointing computes again."""
    modules = [each for each in denoiser.modules() if hasattr(each, "gradient_checkpointing")]
    for module in modules:
        module.gradient_checkpointing = True
        module._gradient_checkpointing_func = partial(kept.block, counter.get_total_flops)
    try:
        yield
    finally:
        for module in modules:
            module.gradient_checkpointing = False


@contextmanager
def _flash_attention() -> Iterator[None]:
    """Attention as processors and GPUs compute it, which the meta device does not by itself.

    Queries, keys, values and the output are kept for the backward pass, and no scores.
    """

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                  dropout_p: float = 0.0, is_causal: bool = False,
                  scale: float | None = None) -> Tensor:  # fmt: skip
        found: Tensor = _FLASH(
            query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
        )[0]
        return found

    usual = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def _attention_flops(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop(query, key, value))


def _attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *rest: Any,
                              **named: Any) -> int:  # fmt: skip
    return int(sdpa_backward_flop(gradient, query, key, value))


FLASH_OPERATIONS = {_FLASH: _attention_flops, _FLASH_BACKWARD: _attention_backward_flops}
"""Attention, as `FlopCounterMode` is told to count it: its own list lacks that of processors."""


def _linear_or_conv(denoiser: nn.Module, name: str) -> nn.Linear | nn.Conv2d:
    layer = denoiser.get_submodule(name)
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def storage_key(tensor: Tensor) -> int:
    """The same for tensors that share their storage, for as long as that is held."""
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * FLOAT32 for each in tensors)
