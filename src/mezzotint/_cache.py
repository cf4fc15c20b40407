"""The folder for what is worth keeping between runs."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MEZZOTINT_CACHE"
"""Environment variable that names the folder."""


def cache_folder() -> Path:
    """The folder that `MEZZOTINT_CACHE` names, or else `mezzotint` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get(CACHE_VARIABLE) or Path(home) / "mezzotint")
