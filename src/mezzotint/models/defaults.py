"""Pipelines that know how they want to be called."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from diffusers import DiffusionPipeline

from mezzotint.models.pipeline_call import generation_defaults


def with_generation_defaults(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Make `pipe(prompt)` use the folder's `generation.json` where the caller says nothing.

    A few-step pipeline called at diffusers' defaults (50 steps, guidance 7.5) gives bad pictures.
    The pipeline keeps its class's name and stays an instance of it, so saving is not affected.

    Raises:
        ModelError: `generation.json` is malformed.
    """
    defaults = generation_defaults(pipe)
    if not defaults:
        return pipe
    base = type(pipe)
    signature = inspect.signature(base.__call__)

    @functools.wraps(base.__call__)
    def call(self: DiffusionPipeline, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        missing = {name: value for name, value in defaults.items() if name not in given}
        return base.__call__(self, *args, **kwargs, **missing)

    members = {"__call__": call, "__doc__": base.__doc__, "__module__": base.__module__}
    pipe.__class__ = type(base.__name__, (base,), members)
    return pipe
