"""The user's folder for what is worth keeping between runs."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "MEZZOTINT_CACHE"
"""Environment variable that names the folder."""


def cache_folder(name: str) -> Path:
    """The folder called `name` in the one that MEZZOTINT_CACHE names.

    Without that variable, in `mezzotint` of the user's cache folder. It need not exist.
    """
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get(CACHE_VARIABLE) or Path(home) / "mezzotint") / name
