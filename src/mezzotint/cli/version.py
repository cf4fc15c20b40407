"""`mezzotint version`."""

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
