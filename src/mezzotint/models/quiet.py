"""Libraries that load models, without their bars and hints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet_libraries(*, warnings: bool = True) -> Iterator[None]:
    """Hide the loading bars of diffusers and transformers; afterwards all is as before.

    Without `warnings` those of diffusers are hidden too: it finds a CLIP text encoder unusual in
    PixArt, and says so each time.
    """
    libraries = [
        library
        for library in (diffusers_logging, transformers_logging)
        if library.is_progress_bar_enabled()
    ]
    verbosity = diffusers_logging.get_verbosity()
    transformers_verbosity = transformers_logging.get_verbosity()
    # It asks for torchvision, which nothing here needs.
    transformers_logging.set_verbosity_error()
    for library in libraries:
        library.disable_progress_bar()
    if not warnings:
        diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        transformers_logging.set_verbosity(transformers_verbosity)
        for library in libraries:
            library.enable_progress_bar()
