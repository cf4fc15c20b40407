"""Recorded samples in two parts: error feedback goes by some, plans are judged on the others.

Error feedback fits the Gram matrices of its inputs. On the samples that these are of, noise is less
than on any others, and by more in some formats and layers than in others: whoever decides by them
is misled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from mezzotint._progress import track
from mezzotint.measuring import Samples
from mezzotint.models import Call
from mezzotint.recipes.auto.held_out import HeldOut, halved, hold_out, independent

HELD_OUT = "Held-out samples"
"""Label of the progress of that stage."""

FEWEST = 4
"""Samples in the smaller half of those that judge, without which all judge: 32 recorded ones."""


@dataclass(frozen=True, eq=False)
class DividedSamples:
    """Recorded calls by what they do for decisions.

    Attributes:
        fitted: those whose inputs error feedback and corrected biases go by.
        judging: those that tell the noise of candidates and plans.
        held: a part of the latter, which judges what the others of them propose.
        shown: which calls judge, for people.
    """

    fitted: tuple[Call, ...]
    judging: tuple[Call, ...]
    held: HeldOut
    shown: str

    @property
    def apart(self) -> bool:
        """True where plans are judged on samples that nothing is fitted to."""
        return self.fitted is not self.judging


@torch.no_grad()
def divided_samples(denoiser: nn.Module, calls: tuple[Call, ...], *, fits: bool) -> DividedSamples:
    """One sample of four judges, and the others are fitted to; all do both where they are few.

    Args:
        denoiser: floating; tells what the samples that judge give by themselves, since rounding
            depends on the size of a batch.
        calls: recorded.
        fits: whether the rounding of weights is fitted to inputs. Else all samples judge.
    """
    if fits:
        known = Samples(denoiser)
        parts = hold_out(calls, lambda call: independent(call) and known.separable(call))
        held = track(parts.held, HELD_OUT)
        judging = tuple(replace(call, output=call.run(denoiser)) for call in held)
        half = halved(judging, lambda call: independent(call) and known.separable(call))
        enough = min(_count(half.others), len(half.samples)) >= FEWEST
        if parts.apart and half.apart and enough:
            half = replace(half, shown=f"half of {parts.shown}")
            return DividedSamples(parts.others, judging, half, f"{parts.shown}, held out")
    return DividedSamples(calls, calls, hold_out(calls), "the recorded calls")


def _count(calls: tuple[Call, ...]) -> int:
    return sum(0 if call.output is None else len(call.output) for call in calls)
