"""Options of the verbs that search for plans, and what they do with the results."""

# ruff: noqa: PLC0415  (verbs import what they need when they run)

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mezzotint.cli._arguments import Address, Exclude, Executor, Pin, Workers, executor_of
from mezzotint.cli._dry_run import foretell
from mezzotint.cli._output import reserved
from mezzotint.cli._results import begun, kept_work
from mezzotint.errors import UsageError

if TYPE_CHECKING:
    from mezzotint.measuring import ExecutorFactory
    from mezzotint.recipes import Recipe

FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class Deciding:
    """Components and layers that a recipe decides about."""

    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            metavar="NAME",
            help="Component of the pipeline to quantize: a denoiser, a text encoder, an "
            "autoencoder. May be repeated: all of them share one budget.",
            show_default="all denoisers",
        ),
    ] = None
    pin: Pin = None
    exclude: Exclude = None

    @property
    def given(self) -> bool:
        """True where anything is asked for."""
        return bool(self.component or self.pin or self.exclude)

    @property
    def components(self) -> Sequence[str] | None:
        """Names as `mezzotint.quantize` takes them."""
        return self.component or None

    def on(self, recipe: Recipe, options: Any) -> Any:
        """The recipe's options, with what --pin and --exclude say.

        Raises:
            UsageError: the recipe decides about all layers itself, or one of them is malformed.
        """
        from mezzotint.recipes import recipes

        asked = {"pin": self.pin, "exclude": self.exclude}
        given = {name: tuple(each) for name, each in asked.items() if each}
        for name in given:
            if name not in _fields(options):
                able = [each.name for each in recipes() if name in _fields(each.options)]
                raise UsageError(
                    f"--{name}: recipe {recipe.name!r} decides about all layers itself; use one "
                    f"of: {', '.join(able)}"
                )
        return dataclasses.replace(options, **given)


@dataclass(frozen=True)
class Searching:
    """Ways to measure, and measurements to go on with."""

    executor: Executor = None
    address: Address = None
    workers: Workers = None
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the measurements of an interrupted run."),
    ] = False
    measurements: Annotated[
        Path | None,
        typer.Option(
            "--measurements",
            metavar="DIR",
            help="Take over what an earlier run with the same model and prompts, whose result is "
            "in DIR, has measured: another budget then costs little.",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be measured and how long that takes, then stop: nothing is "
            "written.",
        ),
    ] = False

    @property
    def given(self) -> bool:
        """True where anything is asked for."""
        return self != Searching()

    def factory(self) -> ExecutorFactory | None:
        """The executor that is asked for; None where none is.

        Raises:
            UsageError, ExecutorError: as `executor_of`.
        """
        return executor_of(self.executor, self.address, self.workers)

    def run(
        self,
        search: Callable[..., FoundT],
        save: Callable[[FoundT], object],
        output: Path,
        *,
        force: bool,
    ) -> FoundT | None:
        """Search, and save what is found; a dry run only tells how long that takes.

        Args:
            search: takes `journal` and `measurements`, as `mezzotint.quantize` does.
            save: writes what is found to `output`.
            output: of the result; finished measurements are kept beside it until that is saved.
            force: replace what is there, and give up an interrupted training.

        Returns:
            What was found; None after a dry run.
        """
        from mezzotint._progress import listening

        if self.dry_run:
            known = self.measurements or begun(output, self.resume)
            foretell(partial(search, measurements=known), begun=known is not None)
            return None
        with (
            reserved(output, force=force),
            kept_work(output, resume=self.resume, force=force) as journal,
            listening(partial(typer.echo, err=True)),
        ):
            found = search(journal=journal, measurements=self.measurements)
            save(found)
        return found


def _fields(options: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(options)}
