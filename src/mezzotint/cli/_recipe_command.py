"""Commands that hand options which they do not know to a recipe."""

from __future__ import annotations

import itertools
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override


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
