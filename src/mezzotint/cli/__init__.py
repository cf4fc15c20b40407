"""The command line: every verb is a thin shell over a library call.

Verbs import what they need when they run, so that help takes no longer than reading it.
"""

# In the order of `mezzotint --help`.
# ruff: noqa: I001
from mezzotint.cli import (
    models,
    graph,
    profile,
    sample,
    explain,
    quantize,
    sweep,
    tune,
    pack,
    recipes,
    plans,
    allocate,
    generate,
    evaluation,
    verify,
    version,
)
from mezzotint.cli._app import app, main

#: Modules that register verbs when imported.
VERBS = (
    models,
    graph,
    profile,
    sample,
    explain,
    quantize,
    sweep,
    tune,
    pack,
    recipes,
    plans,
    allocate,
    generate,
    evaluation,
    verify,
    version,
)

__all__ = ["VERBS", "app", "main"]
