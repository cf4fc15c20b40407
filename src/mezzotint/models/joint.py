"""Several components of one pipeline as one module, so that one budget holds for all of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from torch import Tensor, nn
from typing_extensions import override

from mezzotint._time_argument import TimeArgument
from mezzotint.errors import UsageError
from mezzotint.models.call_arguments import component_of
from mezzotint.models.calls import Call
from mezzotint.models.denoiser import denoises
from mezzotint.models.text_inputs import TEXT, TextInputs


class Joint(nn.Module):
    """Components of a pipeline, such as the two transformers of Wan 2.2.

    A layer is called after its component: `transformer_2.blocks.0.ffn.net.2`. Each call is of one
    denoiser, or of an autoencoder's decoder, which it names; all that is measured of a denoiser,
    from its recorded calls, is measured of this module alike. Text encoders are run within the
    calls of denoisers, which then name their text.

    Args:
        components: by their names in the pipeline; shared with it, not copied.
        quantized: names of those that are to be quantized; the others are only run, and shared by
            copies. By default all.
        texts: of the text encoders among the components, if there are any.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        quantized: Sequence[str] | None = None,
        texts: TextInputs | None = None,
    ) -> None:
        super().__init__()
        for name, component in components.items():
            self.add_module(name, component)
        self.quantized = tuple(components) if quantized is None else tuple(quantized)
        self.texts = texts
        self.training = any(component.training for component in components.values())

    @property
    def components(self) -> dict[str, nn.Module]:
        """The components by their names."""
        return {name: each for name, each in self._modules.items() if each is not None}

    @property
    def denoisers(self) -> dict[str, nn.Module]:
        """Those that predict noise."""
        return {n: part for n, part in self.components.items() if denoises(type(part))}

    @property
    def decoders(self) -> dict[str, nn.Module]:
        """Autoencoders, of which the decoder is called."""
        return {n: part for n, part in self.components.items() if decodes(part)}

    @override
    def forward(
        self, *, component: str, timestep: Any = None, text: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """Call one component.

        Args:
            component: its name.
            timestep: that the component is given under its own name; None for a call without.
            text: that the text encoders encode, int64 [rows, 2], see `TextInputs`; None for what
                is among the other arguments.
            kwargs: all other arguments of the component, by name.
        """
        called = self.get_submodule(component)
        if text is not None and self.texts is not None:
            kwargs = self.texts.applied(self.components, text, kwargs)
        if decodes(called):
            return called.decode(**kwargs)  # type: ignore[operator]
        argument = TimeArgument.of(called.forward)
        if argument is not None and timestep is not None:
            kwargs[argument.name] = timestep
        return called(**kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with copies of what is quantized, and hooks of its own."""
        made = type(self)(
            {
                name: copy.deepcopy(each, memo) if name in self.quantized else each
                for name, each in self.components.items()
            },
            self.quantized,
            self.texts,
        )
        made.training = self.training
        return made


def decodes(component: Any) -> bool:
    """True for an autoencoder."""
    return isinstance(component, nn.Module) and callable(getattr(component, "decode", None))


def parts_of(module: nn.Module) -> dict[str | None, nn.Module]:
    """The components of a joint module; None → the module where it is any other."""
    return dict(module.components.items()) if isinstance(module, Joint) else {None: module}


def quantized_parts(module: nn.Module) -> dict[str | None, nn.Module]:
    """Those components of a joint module that are to be quantized; None → any other module."""
    names = component_names(module)
    return {name: part for name, part in parts_of(module).items() if not names or name in names}


def denoising_parts(module: nn.Module) -> dict[str | None, nn.Module]:
    """The denoisers of a joint module; None → any other module."""
    return dict(module.denoisers.items()) if isinstance(module, Joint) else {None: module}


def component_names(module: nn.Module) -> tuple[str, ...]:
    """Names of the components of a joint module that are to be quantized; none of any other."""
    return module.quantized if isinstance(module, Joint) else ()


def quantized_alone(module: nn.Module) -> nn.Module:
    """A joint module of those components alone that are to be quantized; any other as it is."""
    if not isinstance(module, Joint):
        return module
    return Joint({name: module.components[name] for name in module.quantized})


def split_name(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """The name of a layer in its own component, and that; both as they are of other modules."""
    if not isinstance(module, Joint):
        return name, module
    component, _, own = name.partition(".")
    return own, module.get_submodule(component)


def to_quantize(name: str, module: nn.Module) -> bool:
    """True for a layer of a component that is to be quantized, and for all of other modules."""
    names = component_names(module)
    return not names or name.partition(".")[0] in names


def touches(layer: str, module: nn.Module, call: Call) -> bool:
    """True where a call may depend on a layer; False for another component's of a joint module."""
    if not isinstance(module, Joint):
        return True
    component = layer.partition(".")[0]
    if component in module.denoisers or component in module.decoders:
        return component == component_of(call)
    return TEXT in call.kwargs


def first_calls(module: nn.Module, calls: Sequence[Call]) -> Iterator[Call]:
    """The first call of each component of a joint module; the first of all of any other.

    Raises:
        UsageError: there is no call of a component that is to be quantized.
    """
    if not isinstance(module, Joint):
        yield calls[0]
        return
    found: dict[str, Call] = {}
    for call in calls:
        found.setdefault(component_of(call) or "", call)
    for name in {**module.denoisers, **module.decoders}:
        if name in module.quantized and name not in found:
            raise UsageError(
                f"calls: none of {name}, whose layers cannot be measured then; take more steps, or "
                "record calls that run it"
            )
        if name in found:
            yield found[name]
