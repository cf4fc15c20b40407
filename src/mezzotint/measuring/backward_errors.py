"""Errors of backward passes, which a denoiser's own code may raise in any form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mezzotint.errors import MezzotintError, ProbeError, first_line


@contextmanager
def backward_errors(denoiser: nn.Module, call: int) -> Iterator[None]:
    """Raise whatever a denoiser's pass forward and backward raises as ProbeError.

    Args:
        denoiser: that is run meanwhile.
        call: index of the recorded call, which is named.
    """
    try:
        yield
    except MezzotintError:
        raise
    except Exception as cause:  # whatever a module's own code may raise
        raise ProbeError(
            f"call {call}: the backward pass of {type(denoiser).__name__} fails "
            f"({first_line(cause)}); measure its layers one by one instead"
        ) from cause
