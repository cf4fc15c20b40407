"""Budgets: bytes, average bits, milliseconds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from numbers import Integral, Real

from mezzotint.errors import BudgetError, InfeasibleBudgetError, UsageError
from mezzotint.plan.uniform_plans import NO_ACTIVATION_BITS

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMG", 1)}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMG", 1)}


def parse_size(text: str) -> int:
    """Bytes in `6MB`, `1.5 GiB` or `7000000`.

    Raises:
        BudgetError: not a number with one of these units, or less than a byte.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]?I?B?)\s*", text.upper())
    size = float(match.group(1)) * _UNITS.get(match.group(2), 0) if match else 0.0
    if not 1 <= size < math.inf:
        raise BudgetError(f"size {text!r} is not understood; write it as 6MB, 1.5GiB or 7000000")
    return int(size)


def parse_latency(text: str) -> tuple[float, bool]:
    """Milliseconds in `35ms` or `0.5s`, or a multiple in `0.6x`; and whether it is a multiple.

    Raises:
        BudgetError: not a positive number with one of these units.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(x|ms|s)\s*", text.lower())
    value = float(match.group(1)) if match else 0.0
    if match is None or not 0 < value < math.inf:
        raise BudgetError(
            f"latency {text!r} is not understood; write 0.6x for a multiple of the floating "
            "denoiser's, or 35ms"
        )
    unit = match.group(2)
    return (1000 * value if unit == "s" else value), unit == "x"


def parse_quality(text: str) -> float:
    """Decibels in `35dB` or `35`.

    Raises:
        BudgetError: not a number, or with another unit.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(db)?\s*", text.lower())
    if match is None or not float(match.group(1)) < math.inf:
        raise BudgetError(f"quality {text!r} is not understood; write it as 35dB")
    return float(match.group(1))


@dataclass(frozen=True)
class Budget:
    """Limits of a plan's cost. Several hold together; none at all means 4-bit weights.

    A size, a latency or a quality alone leaves the bits free.

    Attributes:
        weight_bits: average stored bits per weight over the quantized layers, scales and zero
            points included.
        size: stored bytes of the whole denoiser, or of all components that are quantized, whatever
            stays floating included; an integer, or text such as `6MB`.
        act_bits: 8 for int8 activations, 16 for none. An average, such as 7.7, is for recipes that
            give layers different widths (`mixdq`).
        pipeline_size: stored bytes of all models of the pipeline, quantized or not; an integer, or
            text such as `6GB`. It says nothing of which are quantized.
        latency: of one denoiser call on this machine: `35ms`, or `0.6x` for a multiple of what the
            floating denoiser takes. For recipes that can weigh it (`auto`), in which layers may
            then also stay floating, or keep a floating input.
        quality: signal to noise that the denoiser's output keeps at the least, measured: `35dB`.
            The plan is the one of the fewest bytes, to a percent. For recipes that can look for it
            (`auto`).
    """

    weight_bits: float | None = None
    size: int | str | None = None
    act_bits: float = 8
    latency: str | None = None
    pipeline_size: int | str | None = None
    quality: float | str | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if self.act_bits != NO_ACTIVATION_BITS and not 2 <= self.act_bits <= 8:
            raise UsageError(f"act_bits is {self.act_bits}; expected 2 to 8, or 16 for none")
        if self.latency is not None:
            parse_latency(self.latency)
        _ = self.decibels
        limits = self.weight_bits, self.size, self.latency, self.pipeline_size, self.quality
        if all(limit is None for limit in limits):
            object.__setattr__(self, "weight_bits", 4.0)
        bits = self.weight_bits
        if bits is not None and not 0 < bits <= 16:
            raise BudgetError(f"weight_bits is {bits}; expected a number above 0 and at most 16")
        for name, size in (("size", self.bytes), ("pipeline_size", self.pipeline_bytes)):
            if size is not None and not 0 < size < 2**63:
                raise BudgetError(
                    f"{name} is {getattr(self, name)}; expected a positive number of bytes"
                )

    def _check_types(self) -> None:
        for name, kinds, expected in (
            ("weight_bits", (Real,), "a number"),
            ("size", (Integral, str), "an integer, or text such as '6MB'"),
            ("pipeline_size", (Integral, str), "an integer, or text such as '6GB'"),
            ("act_bits", (Real,), "a number"),
            ("latency", (str,), "text such as '35ms' or '0.6x'"),
            ("quality", (Real, str), "decibels, or text such as '35dB'"),
        ):
            value = getattr(self, name)
            if value is None and name != "act_bits":
                continue
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise BudgetError(f"{name} is {value!r}; expected {expected}")

    @property
    def bytes(self) -> int | None:
        """`size` in bytes."""
        return parse_size(self.size) if isinstance(self.size, str) else self.size

    @property
    def pipeline_bytes(self) -> int | None:
        """`pipeline_size` in bytes."""
        size = self.pipeline_size
        return parse_size(size) if isinstance(size, str) else size

    def beside(self, others: int) -> Budget:
        """The budget of what is quantized, where the pipeline's other models take some bytes.

        Args:
            others: bytes of all models that are not quantized.

        Raises:
            InfeasibleBudgetError: they take all of `pipeline_size`.
        """
        if self.pipeline_bytes is None:
            return self
        left = self.pipeline_bytes - others
        if left <= 0:
            raise InfeasibleBudgetError(
                f"pipeline_size {self.pipeline_size} cannot be met: the models that are not "
                f"quantized take {others:,} bytes; quantize more components, or allow more"
            )
        size = left if self.bytes is None else min(left, self.bytes)
        return replace(self, size=size, pipeline_size=None)

    @property
    def decibels(self) -> float | None:
        """`quality` in decibels."""
        if self.quality is None:
            return None
        return parse_quality(str(self.quality))

    @property
    def limits_bytes(self) -> bool:
        """True if stored bytes are limited, by `weight_bits` or `size`."""
        return self.weight_bits is not None or self.size is not None

    def milliseconds(self, floating: float) -> float | None:
        """`latency` where the floating denoiser takes `floating` milliseconds."""
        if self.latency is None:
            return None
        value, multiple = parse_latency(self.latency)
        return value * floating if multiple else value
