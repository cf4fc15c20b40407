"""The widths that a budget asks for: whole bits, as the paper counts them."""

from __future__ import annotations

from dataclasses import dataclass

from mezzotint.errors import UsageError
from mezzotint.formats import FLOAT
from mezzotint.plan import NO_ACTIVATION_BITS, Budget
from mezzotint.recipes.mpqdm.options import MPQDM

WIDEST = 8
"""Bits of the widest codes of a format."""


@dataclass(frozen=True)
class Widths:
    """Nominal widths of all layers that are no exception.

    Attributes:
        weight: bits of weights, on average over a layer's channels.
        activation: bits of inputs; None leaves them floating.
    """

    weight: int
    activation: int | None

    def input_format(self, options: MPQDM) -> str:
        """Name of the layers' activation format."""
        if self.activation is None:
            return FLOAT
        return f"uint{self.activation}/{options.inputs}"


def nominal_widths(budget: Budget, options: MPQDM) -> Widths:
    """The widths of a budget under nominal counting.

    Raises:
        UsageError: it asks for a fraction of a bit, or for widths that the method does not have;
            the message names the option to change.
    """
    bits = budget.weight_bits
    assert bits is not None, "a budget without size and latency has one"
    if bits != int(bits):
        raise UsageError(
            f"weight_bits: is {bits:g}, but nominal widths are whole, such as 2 or 3; counting "
            "stored takes any average"
        )
    if options.mixes_widths and bits < 2:
        raise UsageError(
            "weight_bits: is 1, but outlier channels take their bit from others, which would have "
            "0; give 2 or more, or channels none"
        )
    widest = WIDEST - 1 if options.mixes_widths else WIDEST
    if bits > widest:
        raise UsageError(f"weight_bits: is {bits:g}; give {widest} at most, or counting stored")
    activation = activation_width(budget.act_bits)
    if options.step_bits and activation is None:
        raise UsageError("step_bits: inputs are floating at 16 act_bits; give 2 to 8, or leave it")
    return Widths(int(bits), activation)


def activation_width(bits: float) -> int | None:
    """Bits of inputs; None where they stay floating.

    Raises:
        UsageError: it is a fraction.
    """
    if bits == NO_ACTIVATION_BITS:
        return None
    if bits != int(bits):
        raise UsageError(f"act_bits: is {bits:g}; the method has whole widths, such as 4 or 6")
    return int(bits)
