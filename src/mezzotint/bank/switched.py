"""A denoiser whose layers take one stored form after another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import nn

from mezzotint.plan import Choice, Plan
from mezzotint.runtime import Calibration, read_timesteps, replace_layers
from mezzotint.runtime.pack import check_calibration, pack_weight


class Switched:
    """A copy of a floating denoiser that takes configurations: nothing is encoded again.

    Only layers whose choice is another than before are replaced. What stays floating is shared
    with the original, and so are the weights.

    Attributes:
        denoiser: the copy, under the configuration taken last; floating before the first.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        calibration: Calibration,
        plan_of: Callable[[Mapping[str, str]], Plan],
    ) -> None:
        """Floating.

        Args:
            denoiser: the original; left as it is.
            calibration: has the encoded weights, and what else packing needs.
            plan_of: plan of a configuration.
        """
        shared = [*denoiser.parameters(), *denoiser.buffers()]
        self.denoiser = copy.deepcopy(denoiser, {id(tensor): tensor for tensor in shared})
        self._original = denoiser
        self._calibration = calibration
        self._plan_of = plan_of
        self._taken: dict[str, Choice] = {}

    def take(self, configuration: Mapping[str, str]) -> nn.Module:
        """The denoiser under a configuration, as packing its plan would make it.

        Args:
            configuration: key of every weight → format.

        Raises:
            BankError: a key is missing or unknown, or has no such candidate; nothing is changed.
            FormatError: something that a layer needs calibrated is lacking; the layer is named.
        """
        plan = self._plan_of(configuration)
        changed = [name for name in plan if self._taken.get(name, Choice()) != plan[name]]
        for name in changed:
            check_calibration(name, self._original.get_submodule(name), plan, self._calibration)
        replace_layers(self.denoiser, {name: self._layer(name, plan) for name in changed})
        self._taken |= {name: plan[name] for name in changed}
        read_timesteps(self.denoiser)
        return self.denoiser

    def _layer(self, name: str, plan: Plan) -> nn.Module:
        layer = self._original.get_submodule(name)
        if not plan[name].quantized:
            return layer
        return pack_weight(name, layer, layer.get_parameter("weight"), plan, self._calibration)
