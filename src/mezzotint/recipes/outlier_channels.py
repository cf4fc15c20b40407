"""Outlier-driven mixed quantization: output channels that take a bit more, and pay with others.

MPQ-DM (arXiv 2412.11549), section 3.2. Pure functions of a layer's weight and inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mezzotint._words import check_words
from mezzotint.errors import CalibrationError, UsageError
from mezzotint.formats import MINMAX, parse_weight_format
from mezzotint.rounding import ranking_named
from mezzotint.runtime.operands import Linear, Operation

#: Parts that the output channels are cut into; one of them is the step of the search.
PARTS = 10

#: Values of inputs and outputs that are held at a time.
_PIECE = 2**23


@dataclass(frozen=True)
class ChannelSearch:
    """Options of the search for channels of N+1 and N-1 bits.

    Attributes:
        search: `paper` looks at m = 0, g, … 5g channels, g a tenth of them, with the input rounded;
            `released` at 0 and g, with the input as it is, as the authors' code does.
        channels: by which channels are ranked, an order of `Encoding`: those of highest `kurtosis`
            take N+1 bits; or those of the widest `range`; or the first ones, `head-tail`; or any,
            at `random`; `none` leaves all at N bits.
        plus: MPQ-DM+: channels take N+1 bits, as many as the search finds at most, and none pays
            with N-1.
        one_bit_levels: whether channels of one bit have two free levels each; else 0 is one.

    Raises:
        UsageError: a word is none of these.
    """

    search: Literal["paper", "released"] = "paper"
    channels: Literal["kurtosis", "range", "random", "head-tail", "none"] = "kurtosis"
    plus: bool = False
    one_bit_levels: bool = True

    def __post_init__(self) -> None:
        check_words(self)

    def counts(self, outputs: int) -> tuple[int, ...]:
        """Every m that is looked at for that many output channels, 0 first."""
        step = outputs // PARTS
        if self.channels == "none" or step == 0:
            return (0,)
        return tuple(step * times for times in range(2 if self.search == "released" else 6))

    def check_bits(self, bits: int) -> None:
        """Refuse a width that leaves no channels of a bit less, or of a bit more.

        Raises:
            UsageError: naming the options.
        """
        if self.channels != "none" and not 2 <= bits <= 7:
            raise UsageError(
                f"weight_bits is {bits}, which leaves no channels of {bits - 1} or of {bits + 1} "
                "bits; use 2 to 7, or channels 'none'"
            )

    @property
    def order(self) -> str:
        """The order of `Encoding` that stores the channels as they are ranked here."""
        return "kurtosis" if self.channels == "none" else self.channels

    def width_name(self, width: int) -> str:
        """The name of a segment of that width, or of a format per channel as far as its width."""
        return "kmeans1" if width == 1 and self.one_bit_levels else f"uint{width}"

    def format_name(self, bits: int, outputs: int, m: int) -> str:
        """The format of `outputs` channels of `bits` bits, of which m take one more.

        With `plus` none takes one less, else m do.
        """
        counts = {bits - 1: 0 if self.plus else m, bits + 1: m}
        counts[bits] = outputs - sum(counts.values())
        held = [width for width in sorted(counts) if counts[width]]
        if held == [bits]:
            return f"{self.width_name(bits)}/channel"
        return "mixed/" + ",".join(f"{self.width_name(width)}:{counts[width]}" for width in held)


@dataclass(frozen=True)
class Mixture:
    """Result of the search for a layer.

    Attributes:
        m: channels of N+1 bits.
        format: name of the weight format.
        errors: m → Σ (X Wᵀ - Q(X) Q(W)ᵀ)² of every m that was looked at.
    """

    m: int
    format: str
    errors: Mapping[int, float]


def choose_mixture(
    weight: Tensor,
    x: Tensor,
    bits: int,
    input_rounding: Callable[[Tensor], Tensor] | None,
    search: ChannelSearch,
    operation: Operation | None = None,
) -> Mixture:
    """The number of channels that take N+1 bits with which the layer's output errs least.

    Weights are rounded within min-max ranges; ties go to the smaller number.

    Args:
        weight: floating [out, in, …], smoothed where the layer is.
        x: inputs of it, rows [..., in] or images [n, c, h, w], smoothed likewise.
        bits: N, 2 to 7.
        input_rounding: gives the values of the quantized input; None for a floating one.
        search: the options.
        operation: of the layer; None for Linear.

    Raises:
        UsageError: there are no channels of N-1 or of N+1 bits.
        FormatError: the weight holds NaN or infinity.
        CalibrationError: an output holds NaN or infinity.
    """
    search.check_bits(bits)
    counts = search.counts(len(weight))
    widths = (bits,) if len(counts) == 1 else (bits - 1, bits, bits + 1)
    weights = [_rounded(weight, search.width_name(width)) for width in widths]
    quantized = x
    if input_rounding is not None and search.search == "paper":
        quantized = input_rounding(x)
    errors = _output_errors(operation or Linear(), weight, weights, (x, quantized))
    if len(counts) == 1:
        by_m = {0: float(errors.sum())}
    else:
        fewer, same, more = errors[:, ranking_named(search.order)(weight).cpu()]
        by_m = {m: _total(fewer, same, more, m) for m in counts}
        if search.plus:
            most = min(by_m, key=by_m.__getitem__)
            by_m = {m: _total(same, same, more, m) for m in counts if m <= most}
    m = min(by_m, key=by_m.__getitem__)
    return Mixture(m, search.format_name(bits, len(weight), m), by_m)


def _total(fewer: Tensor, same: Tensor, more: Tensor, m: int) -> float:
    """Error of the layer: the first m ranked channels at fewer bits, the last m at more."""
    rest = len(same) - m
    return float(fewer[:m].sum() + same[m:rest].sum() + more[rest:].sum())


def _rounded(weight: Tensor, name: str) -> Tensor:
    """The weight at one width, min-max, float32."""
    fmt = parse_weight_format(f"{name}/channel")
    assert fmt is not None
    return fmt.roundtrip(weight, MINMAX)


@torch.no_grad()
def _output_errors(
    operation: Operation, weight: Tensor, rounded: Sequence[Tensor], inputs: tuple[Tensor, Tensor]
) -> Tensor:
    """Σ (X Wᵀ - Q(X) Q(W)ᵀ)² of each output channel with each rounded weight: float64 [n, out].

    An output channel depends on no other row of the weight, so that mixtures need no products of
    their own.

    Args:
        operation: of the layer.
        weight: floating.
        rounded: weights of its shape.
        inputs: the floating ones, and those that meet rounded weights.

    Raises:
        CalibrationError: an output holds NaN or infinity.
    """
    errors = torch.zeros(len(rounded), len(weight), dtype=torch.float64)
    with torch.autocast(weight.device.type, enabled=False):
        for x, quantized in zip(*(_pieces(each, operation) for each in inputs), strict=True):
            exact = operation.apply(x, weight.float(), None)
            for index, each in enumerate(rounded):
                error = operation.apply(quantized, each, None).sub_(exact).square_()
                by_channel = error.movedim(operation.channel_dim, 0).flatten(1)
                errors[index] += by_channel.sum(1, dtype=torch.float64).cpu()
    if not bool(errors.isfinite().all()):
        raise CalibrationError("an output of the layer holds NaN or infinity")
    return errors


def _pieces(x: Tensor, operation: Operation) -> Iterator[Tensor]:
    """The inputs, float32, a few rows or images at a time."""
    samples = x.reshape(-1, x.shape[-1]) if isinstance(operation, Linear) else x
    count = max(1, _PIECE // max(1, samples[:1].numel()))
    for first in range(0, len(samples), count):
        yield samples[first : first + count].float()
