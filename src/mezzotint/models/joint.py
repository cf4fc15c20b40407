"""Several components of one pipeline as one module, so that one budget holds for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffusers import DiffusionPipeline
from torch import nn
from typing_extensions import override

from mezzotint._time_argument import TimeArgument
from mezzotint._words import listed
from mezzotint.errors import ModelError, UsageError
from mezzotint.models.calls import Call
from mezzotint.models.denoiser import find_denoisers

COMPONENT = "component"
"""Keyword by which a call of a joint module names the component that it is of."""

_TIMESTEP = "timestep"
"""Keyword of the timestep, whatever the component itself calls it."""


class Joint(nn.Module):
    """Components of a pipeline, such as the two transformers of Wan 2.2.

    A layer is called after its component: `transformer_2.blocks.0.ffn.net.2`. Each call is of one
    component, which it names; all that is measured of a denoiser, from its recorded calls, is
    measured of this module alike.

    Args:
        components: by their names in the pipeline; shared with it, not copied.
    """

    def __init__(self, components: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, component in components.items():
            self.add_module(name, component)
        self.train(any(component.training for component in components.values()))

    @property
    def components(self) -> dict[str, nn.Module]:
        """The components by their names."""
        return {name: each for name, each in self._modules.items() if each is not None}

    @override
    def forward(self, *, component: str, timestep: Any = None, **kwargs: Any) -> Any:
        """Call one component.

        Args:
            component: its name.
            timestep: that the component is given under its own name; None for a call without.
            kwargs: all its other arguments, by name.
        """
        called = self.get_submodule(component)
        argument = TimeArgument.of(called.forward)
        if argument is not None and timestep is not None:
            kwargs[argument.name] = timestep
        return called(**kwargs)


def parts_of(module: nn.Module) -> dict[str | None, nn.Module]:
    """The components of a joint module; None → the module where it is any other."""
    if not isinstance(module, Joint):
        return {None: module}
    return dict(module.components.items())


def component_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the components of a joint module; none of any other."""
    return tuple(module.components) if isinstance(module, Joint) else ()


def split_name(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """The name of a layer in its own component, and that; both as they are of other modules."""
    if not isinstance(module, Joint):
        return name, module
    component, _, own = name.partition(".")
    return own, module.get_submodule(component)


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
        given[_TIMESTEP] = given.pop(argument.name)
    return Call((), {COMPONENT: component, **given})


def first_calls(module: nn.Module, calls: Sequence[Call]) -> Iterator[Call]:
    """The first call of each component of a joint module; the first of all of any other.

    Raises:
        UsageError: there is no call of a component.
    """
    if not isinstance(module, Joint):
        yield calls[0]
        return
    found: dict[str, Call] = {}
    for call in calls:
        found.setdefault(call.kwargs.get(COMPONENT, ""), call)
    for name in module.components:
        if name not in found:
            raise UsageError(
                f"calls: none of {name}, whose layers cannot be measured then; take more steps, or "
                "record calls that run it"
            )
        yield found[name]


def denoising_module(pipe: DiffusionPipeline, components: Sequence[str] | None = None) -> nn.Module:
    """The pipeline's denoiser; where it has several, or components are named, all as one module.

    Args:
        pipe: the pipeline.
        components: names of those wanted; by default all denoisers.

    Raises:
        ModelError: the pipeline has no denoiser.
        UsageError: a component is none of its denoisers, or named twice; or none is named.
    """
    found = find_denoisers(pipe)
    if not found:
        raise ModelError(
            f"{type(pipe).__name__} has no denoiser: none of its components "
            f"({', '.join(pipe.components)}) is a diffusers model that takes a timestep"
        )
    wanted = tuple(found) if components is None else tuple(components)
    if isinstance(components, str) or not wanted or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"components: is {components!r}; give names, each once, such as {(*found,)!r}"
        )
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise UsageError(
            f"components: {unknown[0]!r} is no denoiser of this {type(pipe).__name__}; it has "
            f"{listed(list(found))}"
        )
    if wanted == tuple(found) and len(found) == 1:
        return next(iter(found.values()))
    # In the pipeline's order, so that the order of the names says nothing.
    return Joint({name: part for name, part in found.items() if name in wanted})
