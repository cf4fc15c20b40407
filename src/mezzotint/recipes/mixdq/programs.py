"""The integer programs: which widths are worth looking at under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

from mezzotint.allocation import BitProgram, Limit, Option, Problem, solve
from mezzotint.errors import InfeasibleBudgetError
from mezzotint.models import LayerGroup
from mezzotint.recipes.costs import rounded_up
from mezzotint.recipes.mixdq.split import ACTIVATION_DIVISIONS, WEIGHT_DIVISIONS, Divisions
from mezzotint.recipes.mixdq.sweep import sweep

Widths = Mapping[str, int]
"""Layer → bits."""

ALIKE: Mapping[LayerGroup, float] = dict.fromkeys(LayerGroup, 1.0)
"""Weights of the joint program before anything is known of them."""

DIVISIONS: Mapping[str, Divisions] = {
    "weight_bits": WEIGHT_DIVISIONS,
    "act_bits": ACTIVATION_DIVISIONS,
}


@dataclass(frozen=True)
class Sensitivity:
    """Quality that every width costs one layer, measured with all others floating.

    Attributes:
        group: what the layer shapes.
        scores: width → the published metric, larger is better: SSIM of the images for content
            layers, SQNR in decibels of the output for quality layers (of the mean relative noise
            of samples; the paper sums over the batch first).
        losses: width → the same measurement as something that adds up over layers: 1 - SSIM, or
            noise power over signal power.
    """

    group: LayerGroup
    scores: Mapping[int, float]
    losses: Mapping[int, float]


@dataclass(frozen=True)
class Programs:
    """One kind of tensor (weights or activations) of all layers, and its average width.

    Attributes:
        field: the budget's field that asks for the average, for errors.
        layers: what has to be decided; layer → what its widths cost.
        sizes: layer → what its width is multiplied with.
        bits: layer → width → bits that count, where that is more than the width itself.
        target: the average to keep to.
        tolerance: None for at most the target, else bits on both sides.
    """

    field: str
    layers: Mapping[str, Sensitivity]
    sizes: Mapping[str, float]
    target: float
    bits: Mapping[str, Mapping[int, float]] | None = None
    tolerance: float | None = None

    @property
    def widest(self) -> Widths:
        """Every layer at its widest."""
        return {name: max(layer.scores) for name, layer in self.layers.items()}

    def group(self, members: Sequence[str]) -> BitProgram:
        """The program of some of the layers."""
        return BitProgram(
            {name: self.layers[name].scores for name in members},
            {name: self.sizes[name] for name in members},
            None if self.bits is None else {name: self.bits[name] for name in members},
        )

    def members(self, group: LayerGroup) -> list[str]:
        """The layers of one group."""
        return [name for name, layer in self.layers.items() if layer.group is group]

    def unlimited(self) -> bool:
        """True where the budget admits every layer's widest candidate."""
        most = self.group(list(self.layers)).average(self.widest)
        return self.tolerance is None and most <= self.target

    def check(self) -> None:
        """Raise InfeasibleBudgetError, naming the smallest average, where the target is below."""
        narrowest = {name: min(layer.scores) for name, layer in self.layers.items()}
        least = self.group(list(self.layers)).average(narrowest)
        if least > self.target + (self.tolerance or 0.0):
            raise InfeasibleBudgetError(
                f"{self.field} {self.target:g} cannot be met: the candidate widths take "
                f"{rounded_up(least)} bits on average or more; ask for that, or allow narrower "
                "candidates"
            )

    def single(self) -> tuple[Widths, ...]:
        """All layers in one program, for scores of one unit."""
        self.check()
        everything = self.group(list(self.layers))
        return (everything.allocate(self.target, self.tolerance).bits,)

    def even(self) -> tuple[Widths, ...]:
        """Two programs at the same average.

        Raises:
            InfeasibleBudgetError: one group cannot take it.
        """
        self.check()
        found: dict[str, int] = {}
        for group in LayerGroup:
            if not (members := self.members(group)):
                continue
            try:
                found |= self.group(members).allocate(self.target, self.tolerance).bits
            except InfeasibleBudgetError as cause:
                raise InfeasibleBudgetError(
                    f"{self.field} {self.target:.6g}: the {group} layers alone cannot have that "
                    f"average ({cause}); split=joint needs no average per group"
                ) from cause
        return ({name: found[name] for name in self.layers},)

    def swept(self) -> tuple[Widths, ...]:
        """Two programs at every published division of the average; distinct results only.

        Where no division keeps to what the groups can take, one program over both, with losses
        counted alike.

        Raises:
            InfeasibleBudgetError: the layers cannot have the average.
        """
        self.check()
        if self.unlimited():
            return (self.widest,)
        content, quality = self.members(LayerGroup.CONTENT), self.members(LayerGroup.QUALITY)
        if not content or not quality:
            return self.single()
        groups = (self.group(content), self.group(quality))
        divisions = replace(DIVISIONS[self.field], first=_span(groups[0]), second=_span(groups[1]))
        found = [each.bits for each in sweep(groups, self.target, divisions, self.tolerance)]
        # They have gaps, among them the even division at the end of what a group can take.
        with suppress(InfeasibleBudgetError):
            found += self.even()
        distinct = {tuple(bits[name] for name in self.layers) for bits in found}
        if not distinct:
            return self.joint(ALIKE)
        return tuple(dict(zip(self.layers, widths, strict=True)) for widths in sorted(distinct))

    def joint(self, weights: Mapping[LayerGroup, float]) -> tuple[Widths, ...]:
        """One program over all layers, losses brought to one unit by each group's weight.

        Raises:
            InfeasibleBudgetError: the layers cannot have the average.
        """
        self.check()
        problem = Problem(
            {
                name: tuple(
                    Option(
                        width, -weights[layer.group] * loss, {self.field: self._share(name, width)}
                    )
                    for width, loss in layer.losses.items()
                )
                for name, layer in self.layers.items()
            }
        )
        # As the decimals that they print as, like the averages of groups.
        target, margin = Fraction(str(self.target)), Fraction(str(self.tolerance or 0))
        least = None if self.tolerance is None else target - margin
        chosen = solve(problem, [Limit(self.field, target + margin, least)]).chosen
        return ({name: int(str(width)) for name, width in chosen.items()},)

    def _share(self, name: str, width: int) -> Fraction:
        """Share of the average that the layer adds, exactly."""
        each = width if self.bits is None else self.bits[name][width]
        return Fraction(each) * Fraction(self.sizes[name]) / self._size

    @cached_property
    def _size(self) -> Fraction:
        return sum(map(Fraction, self.sizes.values()), Fraction(0))


def _span(group: BitProgram) -> tuple[float, float]:
    """The least and the greatest average that a group can take."""
    narrowest = {name: min(scores) for name, scores in group.scores.items()}
    widest = {name: max(scores) for name, scores in group.scores.items()}
    return group.average(narrowest), group.average(widest)
