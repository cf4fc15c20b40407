"""Training of one graph network: squared error and rank losses, stopped by a validation part."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mezzotint.predictors.network import GraphNetwork, Reading
from mezzotint.predictors.options import PredictorOptions, RankLoss
from mezzotint.predictors.rank_losses import rank_loss

RATE, DECAY, CLIP = 1e-3, 1e-6, 5.0

#: Share of labels that `oversample` draws more often.
BEST = 0.1


@dataclass(frozen=True, eq=False)
class LabelRows:
    """Some labels as the network reads them.

    Attributes:
        choices: int64 [m, nodes], indices of formats.
        targets: float32 [m], on the fold's scale.
        prior: float32 [m], what the network adds to.
    """

    choices: Tensor
    targets: Tensor
    prior: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, rows: Tensor) -> LabelRows:
        """Those rows of them, in that order."""
        return LabelRows(self.choices[rows], self.targets[rows], self.prior[rows])


def total_loss(network: GraphNetwork, reading: Reading, rows: LabelRows, kind: RankLoss) -> Tensor:
    """Squared error, and the mean of rank losses over the hops that have roots."""
    error = (reading.predicted + rows.prior - rows.targets).square().mean()
    ranked = [hop for hop, has_roots in enumerate(network.topology.ranked) if has_roots]
    ranks = [rank_loss(kind, reading.norms[:, hop], rows.targets) for hop in ranked]
    return error + torch.stack(ranks).mean()


def step(
    network: GraphNetwork, optimizer: torch.optim.Optimizer, rows: LabelRows, kind: RankLoss
) -> None:
    """One update from a batch, with gradients of norm 5 at most."""
    optimizer.zero_grad(set_to_none=True)
    loss = total_loss(network, network(rows.choices), rows, kind)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    optimizer.step()


def optimizer_of(network: GraphNetwork) -> torch.optim.Optimizer:
    """AdamW at the published rate and decay."""
    return torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)


def drawn(targets: Tensor, times: int) -> Tensor:
    """Rows of an epoch: each once, and those of the best tenth so many times; int64."""
    rows = torch.arange(len(targets))
    best = targets.argsort(descending=True, stable=True)[: math.ceil(len(targets) * BEST)]
    return torch.cat([rows, best.repeat(times - 1)])


def batches(
    targets: Tensor, options: PredictorOptions, generator: torch.Generator
) -> Iterator[Tensor]:
    """Rows of one epoch in random order, as many as fit a batch at a time."""
    rows = drawn(targets, options.oversample)
    order = rows[torch.randperm(len(rows), generator=generator)]
    yield from torch.split(order, options.batch)


def train(
    network: GraphNetwork,
    train_rows: LabelRows,
    validation: LabelRows,
    options: PredictorOptions,
    seed: int,
) -> int:
    """Train in place, and leave the network as it was when the validation loss was least.

    Args:
        network: initialized.
        train_rows: fitted.
        validation: labels whose loss stops training.
        options: see there.
        seed: of the order of batches.

    Returns:
        The epoch at whose end the network was best; 0 where training bettered nothing.
    """
    optimizer = optimizer_of(network)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    generator = torch.Generator().manual_seed(seed)
    least, best, at = math.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(options.epochs + 1):
        # The first round looks at the network as it begins: a prior may be hard to better.
        if epoch:
            _run_epoch(network, optimizer, train_rows, options, generator)
            schedule.step()
        network.eval()
        with torch.no_grad():
            reading = network(validation.choices)
            loss = float(total_loss(network, reading, validation, options.loss))
        if loss < least:
            least, best, at = loss, copy.deepcopy(network.state_dict()), epoch
        if epoch - at >= options.patience:
            break
    network.load_state_dict(best)
    return at


def _run_epoch(
    network: GraphNetwork,
    optimizer: torch.optim.Optimizer,
    rows: LabelRows,
    options: PredictorOptions,
    generator: torch.Generator,
) -> None:
    network.train()
    for batch in batches(rows.targets, options, generator):
        step(network, optimizer, rows.at(batch), options.loss)
