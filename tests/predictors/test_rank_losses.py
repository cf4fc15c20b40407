"""Rank losses: they pull scores into the order of the targets, the best ones first."""

import pytest
import torch

from mezzotint.predictors.rank_losses import (
    discounts,
    lambdarank_loss,
    pair_weights,
    rank_loss,
    soft_ranks,
    spearman_loss,
)

TARGETS = torch.tensor([50.0, 40.0, 10.0, 0.0])


def gradient(loss, scores):
    scores = scores.clone().requires_grad_()
    loss(scores, TARGETS).backward()
    return scores.grad


LOSSES = [spearman_loss, lambdarank_loss]


@pytest.mark.parametrize("loss", LOSSES)
def test_two_swapped_pairs_are_pulled_apart(loss):
    # Of each pair the better one has the lower score; a step against the gradient raises it.
    found = gradient(loss, torch.tensor([0.4, 0.5, 0.1, 0.2]))
    assert found[0] < found[1]
    assert found[2] < found[3]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_right_order_costs_least(loss):
    right = loss(torch.tensor([4.0, 3.0, 2.0, 1.0]), TARGETS)
    swapped = loss(torch.tensor([3.0, 4.0, 2.0, 1.0]), TARGETS)
    reverse = loss(torch.tensor([1.0, 2.0, 3.0, 4.0]), TARGETS)
    assert right < swapped < reverse


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scale_of_scores_does_not_matter(loss):
    scores = torch.tensor([0.4, 0.5, 0.1, 0.2])
    torch.testing.assert_close(loss(1000 * scores + 7, TARGETS), loss(scores, TARGETS))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_scores_or_targets_cost_a_finite_loss(loss):
    equal = torch.ones(4, requires_grad=True)
    for scores, targets in ((equal, TARGETS), (equal * torch.arange(4.0), torch.ones(4))):
        value = loss(scores, targets)
        value.backward()
        assert value.isfinite()
        assert equal.grad.isfinite().all()


def test_soft_ranks_of_clearly_different_values_are_ranks():
    found = soft_ranks(torch.tensor([3.0, 1.0, 2.0, 9.0]))
    torch.testing.assert_close(found, torch.tensor([2.5, 0.5, 1.5, 3.5]), atol=0.05, rtol=0)


def test_both_sides_are_ranked():
    scores = torch.tensor([4.0, 3.0, 2.0, 1.0])
    stretched = torch.tensor([5000.0, 40.0, 10.0, 0.0])
    # A correlation with raw targets would fall to 0.8 of that with ranks.
    assert spearman_loss(scores, torch.tensor([4.0, 3.0, 2.0, 1.0])) < 0.01
    assert spearman_loss(scores, stretched.log1p()) < 0.05


def test_the_highest_score_is_first():
    found = discounts(torch.tensor([0.1, 0.9, 0.5]))
    torch.testing.assert_close(found, 1 / torch.log2(torch.tensor([4.0, 2.0, 3.0])))


def test_swapping_two_predictions_changes_the_weights_of_pairs():
    before = pair_weights(torch.tensor([4.0, 3.0, 2.0, 1.0]), TARGETS)
    after = pair_weights(torch.tensor([4.0, 1.0, 2.0, 3.0]), TARGETS)
    assert not torch.allclose(before, after)
    # The pair of best and second weighs most where both stand in front.
    assert before[0, 1] < after[0, 1]


def test_a_pair_weighs_what_ndcg_changes_by():
    scores = torch.tensor([2.0, 4.0, 1.0, 3.0])
    gains = torch.exp2(TARGETS / 10) - 1
    ideal = (gains / torch.log2(torch.arange(2.0, 6.0))).sum()

    def ndcg(scores):
        return (gains * discounts(scores)).sum() / ideal

    swapped = torch.tensor([4.0, 2.0, 1.0, 3.0])
    expected = (ndcg(swapped) - ndcg(scores)).abs()
    torch.testing.assert_close(pair_weights(scores, TARGETS)[0, 1], expected)


def test_weights_of_pairs_carry_no_gradient():
    scores = torch.tensor([2.0, 4.0, 1.0, 3.0], requires_grad=True)
    assert not pair_weights(scores, TARGETS).requires_grad


def test_both_is_the_sum_and_none_is_0():
    scores = torch.tensor([0.4, 0.5, 0.1, 0.2])
    parts = rank_loss("spearman", scores, TARGETS) + rank_loss("lambdarank", scores, TARGETS)
    torch.testing.assert_close(rank_loss("both", scores, TARGETS), parts)
    assert rank_loss("none", scores, TARGETS) == 0


@pytest.mark.parametrize("kind", ["spearman", "lambdarank", "both", "none"])
def test_one_entry_has_no_order(kind):
    assert rank_loss(kind, torch.ones(1), torch.ones(1)) == 0
