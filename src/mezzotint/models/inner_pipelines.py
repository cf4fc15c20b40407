"""Pipelines within a pipeline, such as the prior and the decoder of a combined one."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

from diffusers import DiffusionPipeline
from torch import nn


def inner_pipelines(pipe: DiffusionPipeline) -> dict[str, DiffusionPipeline]:
    """Attribute → pipeline that runs a part of the work, and shares the components."""
    return {n: each for n, each in vars(pipe).items() if isinstance(each, DiffusionPipeline)}


def all_pipelines(pipe: DiffusionPipeline) -> Iterator[DiffusionPipeline]:
    """Yield a pipeline, and those within it."""
    yield pipe
    for inner in inner_pipelines(pipe).values():
        yield from all_pipelines(inner)


def with_components(
    pipe: DiffusionPipeline, components: Mapping[str, nn.Module]
) -> DiffusionPipeline:
    """A shallow copy of a pipeline, and of those within it, with other modules as components.

    Args:
        pipe: left as it is.
        components: by their names in the pipeline; pipelines within it may call them otherwise.
    """
    replaced = {id(getattr(pipe, name)): part for name, part in components.items()}
    copied = copy.copy(pipe)
    for name, part in components.items():
        setattr(copied, name, part)
    for attribute, inner in inner_pipelines(pipe).items():
        own = {
            name: replaced[id(part)]
            for name, part in inner.components.items()
            if id(part) in replaced
        }
        setattr(copied, attribute, with_components(inner, own))
    return copied
