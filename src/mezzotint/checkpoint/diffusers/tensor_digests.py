"""Digests of a packed model's tensors, in the configuration that is saved with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mezzotint.checkpoint.diffusers.config import MezzotintConfig


@contextmanager
def config_with_digests(model: Any, digests: Mapping[str, str]) -> Iterator[None]:
    """Have the model's config.json name the digests of its tensors, for as long as it is saved.

    They are of one state of the model: nothing of them stays with the model itself.
    """
    config: MezzotintConfig = model.config["quantization_config"]
    model.register_to_config(quantization_config=MezzotintConfig(config.plan, sha256=digests))
    try:
        yield
    finally:
        model.register_to_config(quantization_config=config)
