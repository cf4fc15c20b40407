"""Commands that hand options which they do not know to a recipe."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override

from mezzotint.errors import UsageError


class RecipeCommand(TyperCommand):
    """A command beside whose own options stand those of a recipe, as `--name value`."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [name for each in self.params for name in (*each.opts, *each.secondary_opts)]
        return super().parse_args(ctx, joined_values(args, [*known, *ctx.help_option_names]))


def joined_values(arguments: list[str], known: list[str]) -> list[str]:
    """The arguments, with unknown options and values of theirs that begin with - made one.

    Else `--target -log(metric)` would be read letter by letter, its `o` as the option `-o`.

    Args:
        arguments: of the command line.
        known: names of options with their dashes, which stay as they are.
    """
    found: list[str] = []
    short = tuple(name for name in known if not name.startswith("--"))
    for before, each in itertools.pairwise(["", *arguments]):
        unknown = before.startswith("--") and "=" not in before and before not in known
        value = each.startswith("-") and not each.startswith(("--", *short))
        if unknown and value:
            found[-1] = f"{before}={each}"
        else:
            found.append(each)
    return found


def recipe_options(arguments: Sequence[str]) -> dict[str, str]:
    """Option → text, from what follows the known options: `--name value`, `--name=value`.

    `--name` alone stands for true, `--no-name` for false.

    Raises:
        UsageError: an argument is not an option, or is given twice.
    """
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("--"):
            raise UsageError(f"unexpected argument {flag!r}; options begin with --")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
            if value == "true" and flag.startswith("--no-"):
                flag, value = f"--{flag[5:]}", "false"
        name = flag.removeprefix("--").replace("-", "_")
        if name in found:
            raise UsageError(f"{flag}: is given twice")
        found[name] = value
    return found
