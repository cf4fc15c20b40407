"""State dictionaries of packed models in which the weights of packed layers are found by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mezzotint.runtime import packed_layers


class NamedWeights(OrderedDict[str, Any]):
    """The stored tensors of a packed model; `weight` of a packed layer is found, and not listed.

    diffusers looks the shapes of dense weights up there before it loads an adapter into FLUX.
    """

    def __init__(self, state: Mapping[str, Any], model: nn.Module) -> None:
        super().__init__(state)
        self._metadata = getattr(state, "_metadata", None)
        self._layers = packed_layers(model)

    def __missing__(self, name: str) -> Tensor:
        """The lazy weight of a packed layer, or of one that an adapter is wrapped around.

        Raises:
            KeyError: there is no packed layer of that name.
        """
        layer, _, tensor = name.rpartition(".")
        for each in (layer, f"{layer}.base_layer"):
            if tensor == "weight" and each in self._layers:
                return self._layers[each].weight
        raise KeyError(name)

    def copy(self) -> OrderedDict[str, Any]:  # type: ignore[override]
        """The stored tensors alone."""
        return OrderedDict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Stored tensors alone, and not the model, are pickled and copied."""
        return OrderedDict, (), {"_metadata": self._metadata}, None, iter(self.items())


def state_dict(model: nn.Module, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """The state dictionary of a packed model, as torch makes it, with the names of dense weights.

    One that is being gathered from several modules is left as it is.
    """
    state: Mapping[str, Any] = type(model).state_dict(model, *args, **kwargs)
    gathered = bool(args) or kwargs.get("destination") is not None
    return state if gathered else NamedWeights(state, model)
