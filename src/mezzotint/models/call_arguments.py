"""Calls of a pipeline's components as calls of a joint module, which name their component."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mezzotint._time_argument import TimeArgument
from mezzotint.models.calls import Call

COMPONENT = "component"
"""Keyword by which a call of a joint module names the component that it is of."""

TIMESTEP = "timestep"
"""Keyword of the timestep, whatever the component itself calls it."""


def component_of(call: Call) -> str | None:
    """Name of the component that a call of a joint module is of; None for calls of others."""
    found = call.kwargs.get(COMPONENT)
    return found if isinstance(found, str) else None


def call_arguments(
    component: str | None, called: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call:
    """The call of a joint module that stands for one of a component; or of the module itself.

    Args:
        component: name of what was called in the joint module; None where there is no such.
        called: the component.
        args: that it was called with.
        kwargs: likewise.
    """
    if component is None:
        return Call(args, kwargs)
    signature = inspect.signature(called.forward)
    given: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        gathered = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        given |= value if gathered else {name: value}
    argument = TimeArgument.of(called.forward)
    if argument is not None and argument.name in given:
        given[TIMESTEP] = given.pop(argument.name)
    return Call((), {COMPONENT: component, **given})
