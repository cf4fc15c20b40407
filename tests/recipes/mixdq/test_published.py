"""Against MixDQ's published measurements of SDXL-Turbo, where they lie beside the checkout."""

import math
from pathlib import Path

import pytest

from mezzotint.allocation.documents import parse
from mezzotint.allocation.files import read_program
from mezzotint.recipes.mixdq.protect import protected
from mezzotint.recipes.mixdq.split import ACTIVATION_DIVISIONS, WEIGHT_DIVISIONS, splits
from mezzotint.recipes.mixdq.sweep import sweep

CHECKOUT = Path(__file__).parents[3]
CONTENT = ("re:.*(ff|attn2).*",)
PROTECTED = (
    {
        "down_blocks.2.attentions.1.transformer_blocks.5.ff.net.2",
        "down_blocks.2.attentions.1.transformer_blocks.6.ff.net.2",
        "down_blocks.2.attentions.1.transformer_blocks.7.ff.net.2",
        "down_blocks.2.attentions.1.transformer_blocks.8.ff.net.2",
        "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
    },
    {
        "conv_in",
        "conv_out",
        "down_blocks.0.resnets.0.conv2",
        "up_blocks.2.resnets.2.conv_shortcut",
    },
)


@pytest.fixture(scope="module")
def folder():
    for parent in (CHECKOUT.parent, CHECKOUT):
        found = parent / "shared" / "data" / "mixdq-sdxl-turbo"
        if found.is_dir():
            return found
    pytest.skip("MixDQ's measurements are not part of the source; none lie beside the checkout")


def groups(folder, kind, content_candidates):
    """The content group and the quality group."""
    sizes, bits = folder / f"{kind}_size.yaml", (2, 4, 8)
    content, quality = (folder / f"{kind}_{metric}.yaml" for metric in ("ssim", "sqnr"))
    return (
        read_program(content, sizes, bits, candidates=content_candidates, only=CONTENT),
        read_program(quality, sizes, bits, candidates=(4, 8), exclude=CONTENT),
    )


@pytest.fixture(scope="module")
def weights(folder):
    return groups(folder, "weight", (2, 4, 8))


@pytest.fixture(scope="module")
def activations(folder):
    return groups(folder, "act", (4, 8))


@pytest.fixture(scope="module")
def unprotected(activations):
    return tuple(group.without(protected(group.widest())) for group in activations)


def of_group(group, shipped):
    return {name: shipped[name] for name in group.scores}


@pytest.fixture(scope="module")
def shipped_weights(folder, weights):
    shipped = parse(folder / "weight_4.00.yaml")
    return [(group, of_group(group, shipped)) for group in weights]


@pytest.fixture(scope="module")
def shipped_activations(folder, unprotected):
    shipped = parse(folder / "act_7.77.yaml")
    return [(group, of_group(group, shipped)) for group in unprotected]


def objective(group, bits):
    return math.fsum(group.scores[name][width] for name, width in bits.items())


def agreement(one, other):
    return sum(one[name] == other[name] for name in one) / len(one)


def test_the_groups_are_those_of_the_paper(weights, activations):
    for content, quality in (weights, activations):
        assert (len(content.scores), len(quality.scores)) == (420, 374)
    ratios = [float(one.size / other.size) for one, other in (weights, activations)]
    assert ratios == pytest.approx([2.2418, 1.2062], abs=5e-5)


def test_the_activations_that_the_paper_protects_are_protected(activations):
    for group, expected in zip(activations, PROTECTED, strict=True):
        found = protected(group.widest())
        assert {name.removeprefix("model.") for name in found} == expected


@pytest.mark.parametrize(("target", "count"), [(3.66, 42), (4, 54), (5, 90), (8, 8)])
def test_as_many_weight_splits_survive_as_published(weights, target, count):
    content, quality = weights
    assert len(splits(target, content.size / quality.size, WEIGHT_DIVISIONS)) == count


@pytest.mark.parametrize(("target", "count"), [(7.7, 200), (8, 100)])
def test_as_many_activation_splits_survive_as_published(unprotected, target, count):
    content, quality = unprotected
    assert len(splits(target, content.size / quality.size, ACTIVATION_DIVISIONS)) == count


def test_every_split_has_a_solution_in_the_released_window(weights):
    assert len(sweep(weights, 8, WEIGHT_DIVISIONS, 0.02)) == 8


@pytest.mark.parametrize("which", [0, 1], ids=["content", "quality"])
def test_the_shipped_weights_come_out_again(shipped_weights, which):
    group, shipped = shipped_weights[which]
    found = group.allocate(group.average(shipped), 0.02)
    assert agreement(found.bits, shipped) >= 0.98
    assert found.objective >= objective(group, shipped)


@pytest.mark.parametrize("which", [0, 1], ids=["content", "quality"])
def test_the_shipped_weights_are_the_optimum_at_their_own_average(shipped_weights, which):
    group, shipped = shipped_weights[which]
    assert group.allocate(group.average(shipped) + 1e-9).bits == shipped


def test_the_shipped_activations_of_quality_come_out_again(shipped_activations):
    group, shipped = shipped_activations[1]
    assert group.allocate(group.average(shipped), 0.02).bits == shipped


def test_the_shipped_activations_of_content_are_beaten_on_the_published_scores(
    shipped_activations,
):
    # They were not chosen by these scores: at no more bits there is a better choice, and they take
    # to_v layers to 4 bits that score lower there, at the same size, than others left at 8.
    group, shipped = shipped_activations[0]
    found = group.allocate(group.average(shipped))
    assert found.average <= group.average(shipped)
    assert found.objective > objective(group, shipped) + 0.07
    assert agreement(group.allocate(group.average(shipped), 0.02).bits, shipped) >= 0.89
