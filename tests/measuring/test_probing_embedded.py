"""Sensitivities by probes rank changes of the embedded models as one-by-one measuring does."""

import pytest
from scipy.stats import spearmanr

from mezzotint._journal import Journal
from mezzotint.measuring import (
    InProcess,
    InputChange,
    LayerChange,
    Noise,
    Original,
    measure_layers,
)
from mezzotint.models import Sampling, find_denoiser, inventory, load_pipeline, record_calls
from mezzotint.plan import Choice
from tests.measuring.probing import candidates, probed

WEIGHTS = tuple(f"int{bits}/channel" for bits in (2, 4, 8))
INPUTS = ("int4/token", "int8/token")


@pytest.mark.parametrize("model", ["emoji-turbo", "emoji-dit"])
def test_probes_rank_as_measuring_does(model: str):
    pipe = load_pipeline(model)
    denoiser = find_denoiser(pipe)[1]
    calls = record_calls(pipe, Sampling(("owl, noto style", "red car, twemoji style"), steps=2))
    names = [layer.name for layer in inventory(denoiser) if layer.supported][::9]
    weights = [LayerChange(name, Choice(each)) for name in names for each in WEIGHTS]
    inputs = [InputChange(name, Choice("int8/channel", each)) for name in names for each in INPUTS]
    measured = []
    for changes in (weights, inputs):
        executor = InProcess(Original(denoiser, calls))
        found = measure_layers(changes, Noise(), executor, Journal(None, {}))
        measured += [figures["noise"] for each in found.values() for figures in each.values()]

    found = probed(denoiser, calls, candidates(names, WEIGHTS, INPUTS), 64)
    estimated = [found.noise_of_weight(name, each) for name in names for each in WEIGHTS]
    estimated += [found.noise_of_input(name, each) for name in names for each in INPUTS]
    assert spearmanr(measured, estimated).statistic >= 0.99
