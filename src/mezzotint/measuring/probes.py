"""Probes: a sample of a recorded call and the seed of a random direction of its output."""

from __future__ import annotations

import itertools
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import CalibrationError, UsageError
from mezzotint.measuring.samples import sample_count
from mezzotint.models import Call

MOST_PROBES = 256
"""More are not worth their time."""

_BITS = 30
"""Digits of a position; there are no more probes than such numbers."""


@dataclass(frozen=True)
class Probe:
    """One sample and one direction.

    Attributes:
        call: index of a recorded call.
        row: of its batch; None for the whole call.
        seed: of the random signs.
    """

    call: int
    row: int | None
    seed: int


def draw_probes(calls: Sequence[Call], count: int, seed: int = 0) -> tuple[Probe, ...]:
    """Probes spread over timesteps, prompts and guidance halves.

    Every row of every call is as likely as any other. Positions are the first points of a (0, 2)
    sequence in base 2 (Sobol' 1967), shifted at random: among each 2^k in turn, all stretches of
    the calls, sorted by timestep, get their share, and of rows as well. So do the first of more
    probes: the first 32 of 64 are the 32.

    Args:
        calls: recorded.
        count: of probes; beyond the number of rows, samples recur with other signs.
        seed: the same one gives the same probes.

    Raises:
        CalibrationError: there are no calls, a call was never run, or none has a row.
        UsageError: `count` is below 1.
    """
    if count < 1:
        raise UsageError(f"probes: {count} is too few; draw 1 or more")
    order = sorted(range(len(calls)), key=lambda index: calls[index].step)
    rows = [sample_count(calls[index]) for index in order]
    ends = list(itertools.accumulate(rows))
    if not ends or ends[-1] == 0:
        raise CalibrationError("no denoiser calls were recorded; give at least one prompt")
    generator = random.Random(seed)  # noqa: S311 - positions, no secrets
    shifts = generator.getrandbits(_BITS), generator.getrandbits(_BITS)
    probes = []
    for index in range(count):
        time, row = (digits ^ shift for digits, shift in zip(_position(index), shifts, strict=True))
        place = bisect_right(ends, (time * ends[-1]) >> _BITS)
        probes.append(Probe(order[place], (row * rows[place]) >> _BITS, _seed_of(seed, index)))
    return tuple(probes)


def random_signs(y: Tensor, seed: int) -> Tensor:
    """Direction of a probe of the output `y`: float64 signs of its shape.

    Those of several rows are scaled, so that each row is as large as all together, on average.

    So the energy of all rows is to the squared projection as each row's own to its own error,
    which is what the noise of a row is.
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, y.shape, generator=generator, dtype=torch.float64).mul_(2).sub_(1)
    signs = signs.to(y.device)
    if len(y) == 1:
        return signs
    power = y.flatten(1).square().sum(1).clamp(min=torch.finfo(torch.float32).tiny)
    scale = (power.mean() / power).sqrt()
    return signs * scale.view(-1, *(1,) * (y.ndim - 1))


def _position(index: int) -> tuple[int, int]:
    """A point of Sobol's sequence in the unit square, in units of 2^-30."""
    first = second = 0
    direction = 1 << (_BITS - 1)
    for bit in range(index.bit_length()):
        if index >> bit & 1:
            first ^= 1 << (_BITS - 1 - bit)
            second ^= direction
        direction ^= direction >> 1
    return first, second


def _seed_of(seed: int, index: int) -> int:
    return random.Random(f"{seed} {index}").getrandbits(62)  # noqa: S311 - signs, no secrets
