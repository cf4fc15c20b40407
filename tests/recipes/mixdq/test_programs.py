"""The integer programs on numbers alone: divisions, one unit, infeasible averages."""

import itertools

import numpy as np
import pytest

from mezzotint.errors import InfeasibleBudgetError
from mezzotint.models import LayerGroup
from mezzotint.recipes.mixdq.joint import fit_weights, predicted, random_widths
from mezzotint.recipes.mixdq.programs import Programs, Sensitivity

WIDTHS = {LayerGroup.CONTENT: (2, 4, 8), LayerGroup.QUALITY: (4, 8)}


def layers(count: int = 8, seed: int = 0) -> dict[str, Sensitivity]:
    generator = np.random.default_rng(seed)
    found = {}
    for index in range(count):
        group = LayerGroup.CONTENT if index % 2 else LayerGroup.QUALITY
        losses = {width: generator.random() * 2.0**-width for width in WIDTHS[group]}
        scores = {width: 1 - loss for width, loss in losses.items()}
        found[f"layer{index}"] = Sensitivity(group, scores, losses)
    return found


def programs(target: float, **fields: object) -> Programs:
    found = layers()
    sizes = {name: float(100 + 7 * index) for index, name in enumerate(found)}
    return Programs("weight_bits", found, sizes, target, **fields)


def average(problem: Programs, widths: dict[str, int]) -> float:
    total = sum(problem.sizes.values())
    return sum(width * problem.sizes[name] for name, width in widths.items()) / total


@pytest.mark.parametrize("target", [3.66, 4.5, 6.0])
def test_no_division_exceeds_the_average(target):
    problem = programs(target)
    found = problem.swept()
    assert len(found) > 1
    assert all(average(problem, widths) <= target for widths in found)


def test_divisions_are_distinct():
    found = programs(4.5).swept()
    assert len({tuple(widths.items()) for widths in found}) == len(found)


def test_widths_come_from_the_candidates():
    problem = programs(5)
    for widths in (*problem.swept(), *problem.even()):
        for name, width in widths.items():
            assert width in WIDTHS[problem.layers[name].group]


def test_a_two_sided_window_is_kept():
    problem = programs(5, tolerance=0.1)
    (widths,) = problem.single()
    assert 4.9 <= average(problem, widths) <= 5.1


def test_a_budget_for_everything_takes_everything():
    assert programs(8).swept() == (programs(8).widest,)


def test_an_average_below_the_narrowest_names_the_nearest():
    problem = programs(2.5)
    least = average(problem, {n: min(x.losses) for n, x in problem.layers.items()})
    for solve in (problem.swept, problem.even, problem.single):
        with pytest.raises(InfeasibleBudgetError, match=f"{least:.3f} bits on average or more"):
            solve()


def test_stored_bits_count_where_they_are_given():
    found = layers()
    extra = {name: {w: w + 0.5 for w in layer.losses} for name, layer in found.items()}
    problem = programs(5, bits=extra)
    (widths,) = problem.single()
    assert average(problem, widths) + 0.5 <= 5


def test_the_joint_program_is_optimal():
    problem = programs(5)
    weights = {LayerGroup.CONTENT: 2.0, LayerGroup.QUALITY: 0.5}

    def loss(widths: dict[str, int]) -> float:
        sums = predicted(problem.layers, widths)
        return sum(weights[group] * value for group, value in sums.items())

    names = list(problem.layers)
    every = (
        dict(zip(names, widths, strict=True))
        for widths in itertools.product(*(problem.layers[name].losses for name in names))
    )
    best = min(loss(widths) for widths in every if average(problem, widths) <= 5)
    (found,) = problem.joint(weights)
    assert loss(found) == pytest.approx(best)


def test_the_unit_moves_bits_between_the_groups():
    problem = programs(5)

    def content_bits(weight: float) -> int:
        (widths,) = problem.joint({LayerGroup.CONTENT: weight, LayerGroup.QUALITY: 1.0})
        return sum(w for n, w in widths.items() if problem.layers[n].group is LayerGroup.CONTENT)

    assert content_bits(100.0) > content_bits(0.01)


def test_the_fit_finds_the_unit():
    found = layers(40)
    plans = random_widths(found, 12)
    truth = {LayerGroup.CONTENT: 3.0, LayerGroup.QUALITY: 0.2}
    errors = [
        sum(truth[group] * value for group, value in predicted(found, plan).items())
        for plan in plans
    ]
    assert fit_weights(found, plans, errors) == pytest.approx(truth)


def test_a_group_that_seems_harmless_is_not_starved():
    found = layers(40)
    plans = random_widths(found, 12)
    errors = [predicted(found, plan)[LayerGroup.CONTENT] for plan in plans]
    weights = fit_weights(found, plans, errors)
    assert weights[LayerGroup.CONTENT] == pytest.approx(1.0)
    assert 0 < weights[LayerGroup.QUALITY] < 0.1


def test_errors_below_nothing_do_not_disturb_the_fit():
    found = layers(40)
    plans = random_widths(found, 12)
    errors = [predicted(found, plan)[LayerGroup.CONTENT] for plan in plans]
    assert all(w > 0 for w in fit_weights(found, plans, [-1e-9, *errors[1:]]).values())


def test_without_any_error_the_groups_weigh_the_same():
    found = layers(40)
    plans = random_widths(found, 3)
    assert fit_weights(found, plans, [0.0, -1.0, float("inf")]) == dict.fromkeys(LayerGroup, 1.0)


def test_ruined_images_are_left_out_of_the_fit():
    found = layers(40)
    plans = random_widths(found, 6)
    errors = [predicted(found, plan)[LayerGroup.CONTENT] for plan in plans]
    whole = fit_weights(found, plans[1:], errors[1:])
    assert fit_weights(found, plans, [float("inf"), *errors[1:]]) == whole


def test_a_group_without_losses_weighs_one():
    content = {name: x for name, x in layers().items() if x.group is LayerGroup.CONTENT}
    plans = random_widths(content, 6)
    errors = [5 * predicted(content, plan)[LayerGroup.CONTENT] for plan in plans]
    assert fit_weights(content, plans, errors)[LayerGroup.QUALITY] == 1.0


def test_the_narrowest_average_is_found_though_the_grid_lacks_it():
    narrow = {name: Sensitivity(x.group, {4: 1.0, 8: 2.0}, {4: 1.0, 8: 0.0})
              for name, x in layers().items()}  # fmt: skip
    problem = Programs("act_bits", narrow, dict.fromkeys(narrow, 10.0), 4.0)
    assert problem.swept() == (dict.fromkeys(narrow, 4),)


def test_an_even_average_that_one_group_cannot_have_names_the_group():
    with pytest.raises(InfeasibleBudgetError, match="the quality layers alone"):
        programs(3.8).even()


def test_random_plans_differ_and_repeat():
    found = layers(40)
    plans = random_widths(found, 12)
    assert len({tuple(plan.values()) for plan in plans}) == 12
    assert plans == random_widths(found, 12)
