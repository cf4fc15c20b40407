"""Kernels for processors."""

# Each registers itself before the last: what is most preferred comes last.
from mezzotint.runtime.cpu import floating, int8  # isort: skip

__all__ = ["floating", "int8"]
