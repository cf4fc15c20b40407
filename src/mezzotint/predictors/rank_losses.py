"""Losses that compare the order of scores with that of targets; of both, higher is better."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mezzotint.predictors.figures import GRADES
from mezzotint.predictors.options import RankLoss
from mezzotint.predictors.target import TOP

#: Softness of ranks, in standard deviations of what is ranked.
_SOFTNESS = 0.1

_TINY = 1e-12


def soft_ranks(values: Tensor) -> Tensor:
    """Differentiable ranks, [n] of [n]: 0.5 and one more for every value that is clearly below.

    Each rank is a sum of sigmoids of differences; equal values share one rank.
    """
    scaled = _standard(values) / _SOFTNESS
    return (scaled[:, None] - scaled).sigmoid().sum(1)


def spearman_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """1 less the correlation of the soft ranks of both, each [n]: 0 where the order is the same."""
    product = _standard(soft_ranks(scores)) * _standard(soft_ranks(targets))
    return 1 - product.mean()


def gains(targets: Tensor) -> Tensor:
    """Gains 2^grade - 1 of targets on the scale from 0 to 50, whose grades are 0 to 5."""
    return torch.exp2((targets * (GRADES / TOP)).clamp(0, GRADES)) - 1


def discounts(scores: Tensor) -> Tensor:
    """Factors of the gains in NDCG: 1/log2(1 + rank), the highest score's rank being 1."""
    order = scores.argsort(descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(1, len(order) + 1, device=order.device)
    return 1 / torch.log2(1 + ranks.to(scores.dtype))


def pair_weights(scores: Tensor, targets: Tensor) -> Tensor:
    """|ΔNDCG| of swapping two entries in the order of the scores: [n, n], without gradient."""
    scores = scores.detach()
    gain, discount = gains(targets), discounts(scores)
    ideal = (gain * discounts(targets)).sum().clamp(min=_TINY)
    return (gain[:, None] - gain).abs() * (discount[:, None] - discount).abs() / ideal


def lambdarank_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """LambdaRank as a loss: pairs in the wrong order cost what NDCG would gain by swapping them.

    Each pair of different grades costs softplus of the worse one's score less the better one's, in
    standard deviations of the scores, times its |ΔNDCG| in the order of the scores themselves.

    Args:
        scores: [n].
        targets: [n], on the scale from 0 to 50.
    """
    scaled = _standard(scores)
    better = gains(targets)[:, None] > gains(targets)
    costs = softplus(scaled - scaled[:, None]) * pair_weights(scores, targets)
    return torch.where(better, costs, 0.0).sum()


def rank_loss(kind: RankLoss, scores: Tensor, targets: Tensor) -> Tensor:
    """The loss, or sum of losses, of that name; 0 for `none`, and where one entry has no order."""
    loss = scores.new_zeros(())
    if len(scores) < 2:
        return loss
    if kind in {"spearman", "both"}:
        loss = loss + spearman_loss(scores, targets)
    if kind in {"lambdarank", "both"}:
        loss = loss + lambdarank_loss(scores, targets)
    return loss


def _standard(values: Tensor) -> Tensor:
    """Values of mean 0 and variance 1; 0 where they are all the same."""
    centered = values - values.mean()
    return centered / (centered.square().mean() + _TINY).sqrt()
