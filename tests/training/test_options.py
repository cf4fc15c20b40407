"""Options of training."""

import dataclasses
import json
import math

import pytest

from mezzotint.errors import UsageError
from mezzotint.training import Rates, Training


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "minutes or steps: give one of them"),
        ({"minutes": 1.0, "steps": 1}, "minutes or steps: give one of them"),
        ({"minutes": -1.0}, "minutes: is -1.0"),
        ({"minutes": math.nan}, "minutes: is nan"),
        ({"steps": -1}, "steps: is -1"),
        ({"steps": 1, "rank": 0}, "rank: is 0"),
        ({"steps": 1, "batch": 0}, "batch: is 0"),
        ({"steps": 1, "window": 0}, "window: is 0"),
        ({"steps": 1, "temperature": 0.0}, "temperature: is 0.0"),
        ({"steps": 1, "relation_weight": math.inf}, "relation_weight: is inf"),
        ({"steps": 1, "own_share": 1.5}, "own_share: is 1.5"),
        ({"steps": 1, "seed": -1}, "seed: is -1"),
        ({"steps": 1, "train": "all"}, "train: is 'all'; it is one of: lora, weights, scales"),
        ({"steps": 1, "trd_graph": "open"}, "trd_graph: is 'open'; it is one of: window, stop"),
        ({"steps": 1, "lora_init": "ones"}, "lora_init: is 'ones'; it is one of: zero, svd"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        Training(**fields)


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(Rates)])
def test_rates_are_no_less_than_zero(field: str):
    with pytest.raises(UsageError, match=f"rates: {field} is -0.1"):
        Rates(**{field: -0.1})


def test_progress_is_that_of_updates_or_minutes():
    assert Training(steps=4).progress(updates=1, minutes=99) == 0.25
    assert Training(minutes=4).progress(updates=99, minutes=1) == 0.25
    assert Training(steps=0).progress(updates=0, minutes=0) == 1


def test_published_rates_are_slower():
    ours, theirs = (dataclasses.asdict(each) for each in (Rates(), Rates.published()))
    assert theirs["lora"] == 1 / 2500
    assert all(theirs[name] <= ours[name] for name in ("lora", "weights", "weight_scale"))


def test_they_are_json():
    assert json.loads(json.dumps(Training(steps=4).to_dict()))["rates"]["decay"] == 0.01
