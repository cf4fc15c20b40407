"""Prompts for those who bring none."""

from __future__ import annotations

from pathlib import Path

import mezzotint as mz
from mezzotint.recipes.default_prompts import default_sampling, sampling_beyond


def test_a_general_list_serves_models_without_their_own(pipe):
    assert len(default_sampling(pipe, 8).prompts) == 8


def test_the_models_own_prompts_come_first(folder, pipe):
    own = Path(folder) / "prompts.txt"
    own.write_text("owl\nheart\n")
    try:
        assert default_sampling(mz.load(folder), 2).prompts == ("owl", "heart")
        assert default_sampling(mz.load(folder), 5).prompts == ("owl", "heart") * 2 + ("owl",)
    finally:
        own.unlink()


def test_work_that_takes_many_prompts_has_all_of_a_usual_list(pipe):
    beyond = sampling_beyond(pipe, default_sampling(pipe, 8)).prompts
    assert len(beyond) > 8
    assert beyond[:8] == default_sampling(pipe, 8).prompts


def test_prompts_that_somebody_chose_are_all_there_are(pipe):
    assert sampling_beyond(pipe, mz.Sampling(prompts=("owl",))).prompts == ("owl",)
