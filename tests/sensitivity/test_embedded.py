"""Replayed measurements of the embedded models equal those of full runs."""

import pytest

from mezzotint.models import Sampling, find_denoiser, inventory, load_pipeline, record_calls
from mezzotint.plan import Choice
from mezzotint.runtime import Calibration
from mezzotint.sensitivity import Journal, Unit, measure


@pytest.mark.parametrize("model", ["emoji-turbo", "emoji-dit"])
def test_scores_are_equal_with_and_without_memory(model: str):
    pipe = load_pipeline(model)
    denoiser = find_denoiser(pipe)[1]
    calls = record_calls(pipe, Sampling(("owl, noto style",), steps=1))
    names = [layer.name for layer in inventory(denoiser) if layer.supported]
    choices = (Choice("int3/channel"), Choice("int8/channel", "int8/token"))
    units = [Unit(name, choice) for name in names[::13] for choice in choices]

    def scores(cache_bytes: int | None) -> object:
        with Journal(None, {}) as journal:
            return measure(denoiser, units, calls, Calibration(), journal, cache_bytes=cache_bytes)

    assert scores(None) == scores(0)
