"""Triangular factors of Gram matrices, which say where the error of each column can be made up."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from mezzotint.errors import FormatError
from mezzotint.rounding.moments import InputMoments

DAMPING = 0.01
"""Added to the diagonal, in units of its mean (Frantar et al. 2022)."""

_STRONGEST = 1.0
"""The damping at which a matrix is given up: it cannot be a Gram matrix."""

_HELD_BYTES = 2**30
"""Factors are kept for the next format of the same layer, up to so many bytes in all."""


@dataclass(frozen=True, eq=False)
class Factor:
    """H = U D Uᵀ of the Gram matrix of some columns, taken in descending order of its diagonal.

    Rounding errors e of the columns before column j can be made up by adding Σ eᵢ Uᵢⱼ to it: of all
    roundings that go through the columns in this order, column j then has the least output error.
    That is what GPTQ finds by the inverse of H (Chee et al. 2023, theorem 6).

    Attributes:
        order: the columns in the order of rounding, int64 [n].
        upper: U with ones on the diagonal, float32 [n, n].
    """

    order: Tensor
    upper: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.order.nbytes + self.upper.nbytes


Factors = tuple[tuple[Factor, ...], ...]
"""Block → group → factor."""

_HELD: WeakKeyDictionary[InputMoments, Factors] = WeakKeyDictionary()


def factors_of(moments: InputMoments, device: torch.device) -> Factors:
    """The factors of all blocks and groups, kept for as long as there is room.

    Raises:
        FormatError: a matrix is no Gram matrix.
    """
    found = _HELD.get(moments)
    if found is None or found[0][0].upper.device != device:
        found = tuple(
            tuple(factor_of(gram.to(device), moments.count) for gram in block)
            for block in moments.blocks
        )
        _hold(moments, found)
    return found


def _hold(moments: InputMoments, factors: Factors) -> None:
    """Keep the newest, and of the others as many as there is room for."""
    _HELD[moments] = factors
    total = 0
    for each, held in reversed(list(_HELD.items())):
        total += sum(factor.nbytes for block in held for factor in block)
        if total > _HELD_BYTES and each is not moments:
            del _HELD[each]


def factor_of(gram: Tensor, count: int) -> Factor:
    """The factor of one Gram matrix.

    Inputs that were always 0 are last, and no error is passed to or from them.

    Args:
        gram: E[x xᵀ], float32 [n, n].
        count: inputs averaged; few of them tell little of how inputs go together, see `shrinkage`.

    Raises:
        FormatError: the matrix is not positive, so it is no Gram matrix.
    """
    energy = gram.diagonal()
    order = energy.argsort(descending=True, stable=True)
    dead = energy[order] <= 0
    mean = energy.clamp(min=0).double().sum() / max(1, int((~dead).sum()))
    # Both from last to first: a Cholesky factor is lower triangular, U is upper.
    last_to_first = order.flip(0)
    scaled = gram[last_to_first][:, last_to_first]
    scaled.div_(mean.float() if bool(mean > 0) else 1.0)
    diagonal = scaled.diagonal().clone()
    scaled.mul_(1 - shrinkage(scaled, count))
    without_input = dead.flip(0)
    scaled[without_input] = 0.0
    scaled[:, without_input] = 0.0
    diagonal[without_input] = 1.0
    lower = _cholesky(scaled, diagonal)
    upper = lower.flip(0, 1)
    return Factor(order, upper.div_(upper.diagonal().clone()))


def shrinkage(gram: Tensor, count: int) -> float:
    """The intensity, 0 to 1, with which a Gram matrix of few samples is drawn to its diagonal.

    The estimated variance of the elements off the diagonal, as of normal inputs, over their sum of
    squares (Ledoit and Wolf 2004; Schäfer and Strimmer 2005, target D). It is 1 for a single
    sample, and where inputs have nothing to do with each other; it vanishes as samples grow many.
    """
    energy = gram.diagonal().double()
    alone = float(energy.square().sum())
    independent = float(energy.sum()) ** 2 - alone
    together = float(torch.linalg.matrix_norm(gram)) ** 2 - alone
    if together <= 0:
        return 1.0
    return min(1.0, (1 + independent / together) / count)


def _cholesky(matrix: Tensor, diagonal: Tensor) -> Tensor:
    """Lower factor, float32, of the matrix with that diagonal, damped as far as it needs."""
    damping = DAMPING
    while damping <= _STRONGEST:
        for dtype in (torch.float32, torch.float64):
            matrix.diagonal().copy_(diagonal + damping)
            lower, info = torch.linalg.cholesky_ex(matrix.to(dtype))
            if int(info) == 0 and bool(torch.isfinite(lower.diagonal()).all()):
                factor: Tensor = lower.float()
                return factor
        damping *= 10
    raise FormatError("its inputs' Gram matrix is not positive; gather it anew")
