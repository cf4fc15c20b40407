"""`mezzotint version`."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import platform
from importlib import metadata

import typer

from mezzotint.cli._app import app, examples


@app.command(epilog=examples("version"))
def version() -> None:
    """Print the versions that a bug report should name."""
    typer.echo(f"python {platform.python_version()}")
    for package in ("mezzotint", "torch", "diffusers", "transformers"):
        typer.echo(f"{package} {metadata.version(package)}")
    from mezzotint.runtime.attention.fused import units_text
    from mezzotint.runtime.cpu import units

    typer.echo(f"8-bit products on the processor: {units.unit_name()}")
    typer.echo(f"attention on the processor: {units_text()}")
