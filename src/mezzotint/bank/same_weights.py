"""A look at floating weights: are they those that a bank was made of?"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from pathlib import Path

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from mezzotint.bank.digests import weight_digest
from mezzotint.bank.index import BankedLayer
from mezzotint.errors import BankError


class SameWeights:
    """Refuses weights that a bank is not of; each is looked at once, unless it is written to.

    Args:
        folder: of the bank, for messages.
        layers: of the bank, with the digests of their weights.
    """

    def __init__(self, folder: Path, layers: Mapping[str, BankedLayer]) -> None:
        self._folder = folder
        self._layers = layers
        self._seen: MutableMapping[Tensor, int] = WeakIdKeyDictionary()

    def check_model(self, denoiser: nn.Module) -> None:
        """Refuse a denoiser of other weights.

        Raises:
            BankError: a layer is unknown, or its weight is another; it is named.
        """
        modules = dict(denoiser.named_modules())
        for name in self._layers:
            if not isinstance(modules.get(name), nn.Linear | nn.Conv2d):
                raise BankError(
                    f"{self._folder}: is a bank of another model, with a layer {name} that "
                    f"{type(denoiser).__name__} does not have; build one for this model"
                )
            self.check_layer(name, modules[name])

    def check_layer(self, name: str, layer: nn.Module) -> None:
        """Refuse a layer of another weight than the bank has under that name.

        Raises:
            BankError: naming the layer.
        """
        weight = layer.get_parameter("weight")
        # Inference tensors count no versions, and cannot be changed outside of inference.
        version = 0 if weight.is_inference() else weight._version
        if self._seen.get(weight) == version:
            return
        if weight_digest(weight) != self._layers[name].digest:
            raise BankError(
                f"{self._folder}: is a bank of other weights than those of layer {name}; delete "
                "it, or name another folder"
            )
        self._seen[weight] = version
