"""Executors go by names."""

from __future__ import annotations

import pytest
from diffusers import DiffusionPipeline

from mezzotint.errors import UsageError
from mezzotint.measuring import (
    InProcess,
    RayCluster,
    chosen_executor,
    executor_named,
    generate_with,
)
from mezzotint.models import Sampling, generate

SAMPLING = Sampling(("owl", "tree", "cat"), batch=2, seed=3)


def test_names():
    assert executor_named("in-process") is InProcess
    found = executor_named("ray", workers=3)
    assert isinstance(found, RayCluster)
    assert found.workers == 3


def test_an_unknown_name_is_answered_with_all_there_are():
    with pytest.raises(UsageError, match=r"unknown executor 'slurm'; there are: in-process, ray$"):
        executor_named("slurm")


def test_an_option_of_another_executor_is_refused_and_that_is_named():
    why = "workers: executor 'in-process' takes none; use executor ray, or leave it out"
    with pytest.raises(UsageError, match=why):
        executor_named("in-process", workers=2)


def test_an_option_of_no_executor_is_refused():
    with pytest.raises(UsageError, match="colour: executor 'ray' takes none; leave it out"):
        executor_named("ray", colour="red")


def test_an_executor_stands_for_itself_and_none_for_none():
    assert chosen_executor("in-process") is InProcess
    assert chosen_executor(InProcess) is InProcess
    assert chosen_executor(None) is None


class TestImages:
    def test_they_are_those_of_the_pipeline(self, unet_pipe: DiffusionPipeline):
        found = generate_with(InProcess, unet_pipe, SAMPLING)
        assert (found == generate(unet_pipe, SAMPLING)).all()

    def test_an_executor_that_makes_none_is_refused(self, unet_pipe: DiffusionPipeline):
        class Blind:
            def __init__(self, original):
                pass

        with pytest.raises(UsageError, match="executor Blind: makes no images"):
            generate_with(Blind, unet_pipe, SAMPLING)

    def test_an_executor_that_leaves_some_out_is_refused(self, unet_pipe: DiffusionPipeline):
        class Lazy(InProcess):
            def images(self, samplings):
                return super().images(samplings[:1])

        with pytest.raises(UsageError, match="executor Lazy: ended without all images"):
            generate_with(Lazy, unet_pipe, SAMPLING)
