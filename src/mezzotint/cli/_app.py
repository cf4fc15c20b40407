"""The command-line application, and the one place that turns errors into exit codes."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

from mezzotint._files import forget_written, last_written
from mezzotint._printable import printable
from mezzotint._progress import working
from mezzotint._scarcity import scarcity
from mezzotint.errors import MezzotintError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count


class ErrorReportingGroup(TyperGroup):
    """Runs a verb; bad input ends in one line on standard error, never in a traceback."""

    @override
    def invoke(self, ctx: Any) -> Any:
        forget_written()
        try:
            with working(next(iter(ctx._protected_args), "mezzotint")):
                result = super().invoke(ctx)
                sys.stdout.flush()
        except MezzotintError as error:
            raise _failure(str(error)) from error
        except BrokenPipeError:
            raise  # the reader of a pipe has seen enough; typer ends quietly
        except typer.Exit:
            raise
        except KeyboardInterrupt as error:
            last = last_written()
            done = "nothing was written" if last is None else f"{printable(str(last))} is complete"
            advice = getattr(error, "__notes__", [done])
            typer.echo(f"interrupted: {'; '.join(advice)}", err=True)
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            message = _of_the_system(error)
            if message is None:
                raise
            _silence_full_output()
            raise _failure(message) from error
        return result


def _failure(message: str) -> typer.Exit:
    typer.echo(f"error: {printable(' '.join(message.splitlines()))}", err=True)
    return typer.Exit(BAD_INPUT)


def _of_the_system(error: Exception) -> str | None:
    """The message of an error that is the machine's, and no bug; None for any other."""
    scarce = scarcity(error)
    if scarce is None and isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return scarce


def _silence_full_output() -> None:
    """Let go what standard output cannot take: Python would try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _open_closed_outputs() -> None:
    """Give a command whose outputs were closed by its caller some that lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  (for good)


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
        threading.Timer(0.1, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(lost)


def main() -> None:
    """Entry point of the `mezzotint` command."""
    _open_closed_outputs()
    sys.unraisablehook = interrupt_again
    app(prog_name="mezzotint")
