"""The options as values, and as text."""

import pytest

from mezzotint.errors import UsageError
from mezzotint.formats import MINMAX
from mezzotint.recipes import MPQDM, options_help, parse_options, recipe_named
from mezzotint.training.options import Rates

RECIPE = recipe_named("mpqdm")


@pytest.mark.parametrize(
    ("field", "value"),
    [("calibration_prompts", 0), ("samples", 0), ("rank", 0), ("batch", 0), ("window", 0),
     ("own_share", 1.5), ("temperature", 0.0), ("relation_weight", float("nan")), ("seed", -1),
     ("train_minutes", -1.0), ("train_minutes", float("inf")), ("train_steps", -1)],
)  # fmt: skip
def test_numbers_out_of_their_domain_are_refused(field: str, value: float):
    with pytest.raises(UsageError, match=field):
        MPQDM(**{field: value})


@pytest.mark.parametrize(
    "field",
    ["search", "channels", "rounding", "inputs", "shortcuts", "counting", "train", "lora_init",
     "feature_loss", "trd_graph", "trajectory"],
)  # fmt: skip
def test_words_that_are_no_choice_are_refused(field: str):
    with pytest.raises(UsageError, match=f"{field}: is 'other'; it is one of"):
        MPQDM(**{field: "other"})


def test_minutes_and_updates_exclude_each_other():
    with pytest.raises(UsageError, match="train_steps: stands in place of train_minutes"):
        MPQDM(train_minutes=1, train_steps=1)


@pytest.mark.parametrize(
    ("options", "minutes", "trains"),
    [
        (MPQDM(), 10, True),
        (MPQDM(train_minutes=3), 3, True),
        (MPQDM(train_minutes=0), 0, False),
        (MPQDM(train_steps=2), None, True),
        (MPQDM(train_steps=0), None, False),
    ],
    ids=["nothing said", "minutes", "no minutes", "updates", "no updates"],
)
def test_training_takes_minutes_or_updates(options: MPQDM, minutes: float | None, trains: bool):
    assert options.training.minutes == minutes
    assert options.training.trains == trains


def test_options_of_training_reach_it():
    options = MPQDM(train="weights", window=3, temperature=0.5, rates="published", seed=7)
    training = options.training
    assert (training.train, training.window, training.temperature) == ("weights", 3, 0.5)
    assert training.rates == Rates.published()
    assert training.seed == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({"plus": "true"}, MPQDM(plus=True)),
        ({"train_minutes": "20"}, MPQDM(train_minutes=20)),
        ({"train_steps": "0"}, MPQDM(train_steps=0)),
        ({"channels": "head-tail"}, MPQDM(channels="head-tail")),
        ({"ranges": "minmax"}, MPQDM(ranges=MINMAX)),
        ({"samples": "none"}, MPQDM(samples=None)),
        ({"temperature": "0.1", "relation_weight": "100"},
         MPQDM(temperature=0.1, relation_weight=100)),
    ],
    ids=str,
)  # fmt: skip
def test_options_are_read_from_text(text: dict[str, str], expected: MPQDM):
    assert parse_options(RECIPE, text) == expected


def test_every_option_is_explained():
    assert all(option.text for option in options_help(RECIPE))
