"""Pipelines as type checkers see them: called with whatever their class takes, parts by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers import DiffusionPipeline

if TYPE_CHECKING:

    class Pipeline(DiffusionPipeline):  # type: ignore[misc]  # skipped when we are checked
        """Any pipeline of diffusers: which one is known when its folder is read."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Run it."""

        def __getattr__(self, name: str) -> Any:
            """A component, or a method of the class."""

else:
    Pipeline = DiffusionPipeline
