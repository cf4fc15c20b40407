"""Bytes: of stored tensors, and of the process."""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mezzotint._files import header_length
from mezzotint.errors import CheckpointError, UsageError


def stored_bytes(path: str | Path) -> int:
    """Bytes of all tensors in a safetensors file, or in those of a folder and its subfolders.

    Headers do not count, so that the figure can be held against `module_bytes`.

    Raises:
        CheckpointError: a file is missing, truncated or damaged, or the folder holds none.
    """
    path = Path(path)
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise CheckpointError(f"{path}: holds no safetensors file; name a saved model's folder")
    return sum(map(_tensor_bytes, files))


def _tensor_bytes(path: Path) -> int:
    try:
        # Opening checks that the tensors fill the file after the header without a gap.
        with safe_open(path, framework="pt"):
            pass
        with path.open("rb") as file:
            start = header_length(file) + file.tell()
    except (OSError, SafetensorError) as cause:
        raise CheckpointError(
            f"{path}: is missing, truncated or damaged ({cause}); copy or download it again"
        ) from cause
    return path.stat().st_size - start


def peak_rss_bytes() -> int:
    """The most physical memory this process has held so far.

    It never falls: to compare two models, measure each in a process of its own.

    Raises:
        UsageError: on Windows, which does not report it this way.
    """
    if sys.platform == "win32":
        raise UsageError("peak memory is not measured on Windows; leave it out")
    import resource  # noqa: PLC0415  (absent on Windows)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
