"""LoRA over packed layers: peft's adapter layers, without what needs a dense weight.

Adapters add their branch to the output of a packed layer. They can be loaded, combined, disabled
and trained; they cannot be fused, since codes take no change.
"""

from __future__ import annotations

from typing import Any

from peft.tuners.lora.layer import Conv2d as LoraConv2d
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.runtime import NormSmoothing, PackedLayer

FUSING = (
    "the layer's weight is packed and cannot take an adapter in; use it unfused (set_adapters sets "
    "its weight), or fuse it into the original and quantize the result"
)


class PackedLoraLinear(LoraLinear):
    """LoRA branch beside a packed Linear."""

    @override
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            UsageError: always, with the remedy.
        """
        raise UsageError(f"fuse_lora: {FUSING}")


class PackedLoraConv2d(LoraConv2d):
    """LoRA branch beside a packed Conv2d."""

    @override
    def update_layer(self, *args: Any, **kwargs: Any) -> Any:
        """Add an adapter; peft makes its convolutions of the base layer's own class."""
        packed: Any = self.get_base_layer()
        self.base_layer = packed.to_float(packed.weight.dtype)
        try:
            return super().update_layer(*args, **kwargs)
        finally:
            self.base_layer = packed

    @override
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse.

        Raises:
            UsageError: always, with the remedy.
        """
        raise UsageError(f"fuse_lora: {FUSING}")


def adapter_layer(target: nn.Module, adapter_name: str, **kwargs: Any) -> nn.Module | None:
    """The adapter layer for `target` where that is packed or adapts a packed layer; else None.

    Raises:
        UsageError: the layer's input is another than in the original.
    """
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if not isinstance(base, PackedLayer):
        return None
    for each in base.choice.structures:
        if isinstance(each, NormSmoothing):
            raise UsageError(
                f"an adapter is loaded into a layer whose input {each.norm} smooths: made for the "
                "original, it would read other inputs; leave its layer out, or quantize the "
                "original with smoothing_norms=false"
            )
    kind = PackedLoraConv2d if len(base.weight_shape) == 4 else PackedLoraLinear
    adapted: nn.Module = kind(target, adapter_name, **kwargs)
    return adapted
