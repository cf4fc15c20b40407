"""Training: what one update does, and what stops it."""

import copy
from dataclasses import replace

import pytest
import torch

from mezzotint.predictors import PredictorOptions
from mezzotint.predictors.rank_losses import rank_loss, spearman_loss
from mezzotint.predictors.training import (
    CLIP,
    LabelRows,
    batches,
    drawn,
    optimizer_of,
    step,
    total_loss,
    train,
)
from tests.predictors.test_network import BLOCKS, DATASET, NETWORK, ROWS, network_of

TARGETS = torch.tensor([50.0, 40.0, 30.0, 20.0, 10.0, 0.0])


def rows_of(targets=TARGETS, prior=0.0):
    choices = NETWORK.topology.expanded(ROWS)
    return LabelRows(choices, targets, torch.full_like(targets, prior))


def after_a_step(kind, targets=TARGETS):
    network = copy.deepcopy(NETWORK).train()
    step(network, optimizer_of(network), rows_of(targets), kind)
    return torch.cat([each.detach().flatten() for each in network.parameters()])


def test_every_rank_loss_changes_the_step():
    found = {kind: after_a_step(kind) for kind in ("none", "spearman", "lambdarank", "both")}
    names = list(found)
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            assert not torch.equal(found[name], found[other]), (name, other)


@pytest.mark.parametrize("kind", ["spearman", "lambdarank", "both"])
@pytest.mark.parametrize("hop", [0, 1, 3])
def test_one_step_with_a_rank_loss_orders_two_swapped_pairs_better(kind, hop):
    network = copy.deepcopy(NETWORK).train()
    # Read at one hop alone: the order of the norms is another one at each.
    network.topology = replace(NETWORK.topology, ranked=tuple(each == hop for each in range(5)))
    choices = rows_of().choices
    with torch.no_grad():
        reading = network(choices)
    # The two best have the lowest norms, the two worst the highest; no squared error is left.
    order = reading.norms[:, hop].argsort()
    targets = torch.full((6,), 25.0)
    targets[order[:2]], targets[order[-2:]] = 50.0, 0.0
    rows = LabelRows(choices, targets, targets - reading.predicted)

    def cost_after_a_step(stepped_by):
        stepped = copy.deepcopy(network)
        step(stepped, torch.optim.SGD(stepped.parameters(), lr=1e-4), rows, stepped_by)
        with torch.no_grad():
            return rank_loss(kind, stepped(choices).norms[:, hop], targets)

    assert cost_after_a_step(kind) < cost_after_a_step("none")


def test_rank_losses_are_averaged_over_hops_with_roots():
    rows = rows_of()
    with torch.no_grad():
        reading = NETWORK(rows.choices)
    error = total_loss(NETWORK, reading, rows, "none")
    found = total_loss(NETWORK, reading, rows, "spearman") - error
    expected = sum(spearman_loss(reading.norms[:, hop], TARGETS) for hop in (0, 1, 3)) / 3
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["none", "both"])
def test_gradients_are_no_longer_than_the_limit_when_they_are_applied(kind):
    network = copy.deepcopy(NETWORK).train()
    seen = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(torch.cat([g.flatten() for g in grads if g is not None]).norm().item())
            return super().step(closure)

    targets = 1000 * TARGETS
    reading = network(rows_of().choices)
    total_loss(network, reading, rows_of(targets), kind).backward()
    raw = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    assert raw > 10 * CLIP
    optimizer = Watching(network.parameters(), lr=1e-4)
    step(network, optimizer, rows_of(targets), kind)
    step(network, optimizer, rows_of(targets), kind)
    assert len(seen) == 2
    assert all(norm <= CLIP * 1.0001 for norm in seen)


def test_the_best_tenth_is_drawn_more_often():
    targets = torch.randperm(30, generator=torch.Generator().manual_seed(0)).float()
    assert drawn(targets, 1).tolist() == list(range(30))
    counts = drawn(targets, 4).bincount()
    assert counts[targets >= 27].tolist() == [4, 4, 4]
    assert counts[targets < 27].eq(1).all()


def test_an_epoch_has_every_row_in_an_order_of_the_seed():
    targets = torch.arange(30.0)
    options = PredictorOptions(batch=16)

    def epoch(seed):
        return list(batches(targets, options, torch.Generator().manual_seed(seed)))

    assert [len(each) for each in epoch(0)] == [16, 14]
    assert sorted(torch.cat(epoch(0)).tolist()) == list(range(30))
    assert torch.equal(torch.cat(epoch(0)), torch.cat(epoch(0)))
    assert not torch.equal(torch.cat(epoch(0)), torch.cat(epoch(1)))


def fitted(validation, **options):
    network = network_of(DATASET, BLOCKS, seed=1)
    at = train(network, rows_of(), validation, PredictorOptions(batch=6, **options), 0)
    return network, at


def test_training_lowers_the_loss():
    rows = rows_of(prior=25.0)
    network = network_of(DATASET, BLOCKS, seed=1)
    with torch.no_grad():
        before = total_loss(network, network(rows.choices), rows, "both")
    train(network, rows, rows, PredictorOptions(epochs=40, batch=6), 0)
    with torch.no_grad():
        after = total_loss(network, network(rows.choices), rows, "both")
    assert after < before / 2


def test_the_network_of_the_least_validation_loss_is_kept():
    network, at = fitted(rows_of(), epochs=10)
    with torch.no_grad():
        least = total_loss(network, network(rows_of().choices), rows_of(), "both")
        start = network_of(DATASET, BLOCKS, seed=1)
        first = total_loss(start, start(rows_of().choices), rows_of(), "both")
    assert at > 0
    assert least < first


def test_where_training_betters_nothing_the_beginning_is_kept():
    start = network_of(DATASET, BLOCKS, seed=1)
    with torch.no_grad():
        already = start(rows_of().choices).predicted
    # The validation part is predicted without error, and in training everything is otherwise.
    network, at = fitted(rows_of(already), epochs=5, patience=2, loss="none")
    assert at == 0
    for name, each in start.state_dict().items():
        assert torch.equal(network.state_dict()[name], each), name
