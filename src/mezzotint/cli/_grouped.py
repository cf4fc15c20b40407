"""Parameters of a command that stand for several options each."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a parameter that is annotated with a dataclass takes the options of its fields.

    The fields are annotated as parameters of a command are. They stand in the help where the
    parameter does, and the command is given an object of the dataclass.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            groups[name] = kind
            parameters += _options(kind)
        else:
            parameters.append(parameter)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    # Typer reads both: the one for what there is, the other for types.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _options(group: type[Any]) -> list[inspect.Parameter]:
    """Parameters for the fields of a group."""
    hints = get_type_hints(group, include_extras=True)

    def parameter(field: Field[Any]) -> inspect.Parameter:
        kind = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(
            field.name, kind, default=field.default, annotation=hints[field.name]
        )

    return [parameter(field) for field in fields(group)]
