"""The command-line application, and the one place that turns errors into exit codes."""

from __future__ import annotations

import _thread
import sys
import threading
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from mezzotint.errors import MezzotintError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class ErrorReportingGroup(TyperGroup):
    """Runs a verb; bad input ends in one line on standard error, never in a traceback."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MezzotintError as error:
            raise _failure(str(error)) from error
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough; typer ends quietly
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise _failure(what) from error
        except KeyboardInterrupt as error:
            advice = getattr(error, "__notes__", ["nothing was written"])
            typer.echo(f"interrupted: {'; '.join(advice)}", err=True)
            raise typer.Exit(INTERRUPTED) from error


def _failure(message: str) -> typer.Exit:
    typer.echo(f"error: {' '.join(message.splitlines())}", err=True)
    return typer.Exit(BAD_INPUT)


app = typer.Typer(
    name="mezzotint",
    cls=ErrorReportingGroup,
    help="Quantize diffusion pipelines under a budget: measure what every layer can bear, spend "
    "the bits where they matter, pack, save.",
    epilog="Errors in what you pass exit with 2, an interruption with 130. Full documentation: "
    "docs/ in the source tree.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def examples(*commands: str) -> str:
    """An epilog for a verb's help, its line breaks kept."""
    return "\n".join(["\b", "Examples:", *(f"  mezzotint {command}" for command in commands)])


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(metadata.version("mezzotint"))
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options that stand before a verb."""


def interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Report errors that cannot be raised where they arise; raise an interruption a moment later.

    One that arrives while a finalizer or a callback runs would otherwise be printed and forgotten.
    """
    if issubclass(lost.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def main() -> None:
    """Entry point of the `mezzotint` command."""
    sys.unraisablehook = interrupt_again
    app(prog_name="mezzotint")
