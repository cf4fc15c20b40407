"""The command-line reference, made of the help texts: `python -m mezzotint.cli.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mezzotint.cli import app

_WIDTH = 88

_HEAD = """\
# Command line

Written by `make docs` from the help texts; edit those.
"""


def reference() -> str:
    """Every verb's help, as one Markdown page."""
    root = typer.main.get_command(app)
    sections = [f"## {title}\n\n```text\n{text}\n```\n" for title, text in helps(root, "mezzotint")]
    return "\n".join([_HEAD, *sections])


def helps(command: Any, path: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """The path and help text of a command and of all its sub-commands."""
    context = command.context_class(
        command,
        info_name=path.rpartition(" ")[2],
        parent=parent,
        terminal_width=_WIDTH,
        **command.context_settings,
    )
    yield path, command.get_help(context)
    for name, child in getattr(command, "commands", {}).items():
        yield from helps(child, f"{path} {name}", context)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), "utf-8")
