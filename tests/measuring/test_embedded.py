"""Replayed measurements of the embedded models equal those of full runs."""

import pytest

from mezzotint._journal import Journal
from mezzotint.measuring import LayerChange
from mezzotint.models import Sampling, find_denoiser, inventory, load_pipeline, record_calls
from mezzotint.plan import Choice
from tests.measuring.figures import noises


@pytest.mark.parametrize("model", ["emoji-turbo", "emoji-dit"])
def test_scores_are_equal_with_and_without_memory(model: str):
    pipe = load_pipeline(model)
    denoiser = find_denoiser(pipe)[1]
    calls = record_calls(pipe, Sampling(("owl, noto style",), steps=1))
    names = [layer.name for layer in inventory(denoiser) if layer.supported]
    choices = (Choice("int3/channel"), Choice("int8/channel", "int8/token"))
    changes = [LayerChange(name, choice) for name in names[::13] for choice in choices]

    def scores(cache_bytes: int | None) -> object:
        with Journal(None, {}) as journal:
            return noises(denoiser, changes, calls, journal, cache_bytes)

    assert scores(None) == scores(0)
