"""The `quantization_config` that a quantized model carries in its config.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import nn
from transformers.utils.quantization_config import (
    QuantizationConfigMixin as TransformersConfigMixin,
)
from typing_extensions import override

from mezzotint.errors import UsageError
from mezzotint.plan import Plan, uniform_plan


class MezzotintMethod(StrEnum):
    """Our entry among diffusers' quantization methods (it must be an enum member)."""

    MEZZOTINT = "mezzotint"


class MezzotintConfig(QuantizationConfigMixin, TransformersConfigMixin):  # type: ignore[misc]
    """Either the plan of a packed checkpoint, or how to quantize a float one while it loads.

    Args:
        plan: choice of every layer; what `save_pretrained` writes and a packed checkpoint needs.
            The JSON form is validated when a model is loaded with it.
        weight_bits: without a plan: one width for all layers, per output channel.
        act_bits: without a plan: 8 for int8 activations per token, 16 for none.
        sha256: digest of every tensor of the packed checkpoint, which is compared on loading; what
            `save_pretrained` writes. Checkpoints of older versions have none.
        modules_to_not_convert: without a plan: layers to keep floating: exact dotted names (of a
            layer or of a module that holds it), globs (`*.proj_out`) or regular expressions
            (`re:.*to_[kv]`).
        unknown: fields that newer versions write beside a plan; they are passed over.

    Raises:
        UsageError: a field is unknown, and no plan goes with it.

    Example:
        >>> config = MezzotintConfig(weight_bits=4, modules_to_not_convert=["conv_out"])
        >>> UNet2DConditionModel.from_pretrained(folder, quantization_config=config)
    """

    def __init__(
        self,
        plan: Plan | Mapping[str, Any] | None = None,
        weight_bits: int = 8,
        act_bits: int = 16,
        modules_to_not_convert: list[str] | None = None,
        sha256: Mapping[str, str] | None = None,
        **unknown: Any,
    ) -> None:
        self.quant_method = MezzotintMethod.MEZZOTINT
        self.plan = plan
        self.weight_bits = weight_bits
        self.act_bits = act_bits
        self.modules_to_not_convert = list(modules_to_not_convert or [])
        self.sha256 = sha256
        unknown.pop("quant_method", None)
        # Nobody writes those by hand: here a field that we do not know is a misspelled one.
        if unknown and plan is None:
            raise UsageError(
                f"quantization_config: unknown field {next(iter(unknown))!r}; there are plan, "
                "weight_bits, act_bits and modules_to_not_convert"
            )

    def plan_for(self, module: nn.Module, source: str = "quantization_config") -> Plan:
        """The plan given, or a uniform one for `module`.

        Raises:
            PlanError: the plan is malformed; `source` says where it stands.
            UsageError: a width is out of its domain, or a pattern names no layer.
        """
        if isinstance(self.plan, Plan):
            return self.plan
        if self.plan is not None:
            return Plan.from_dict(self.plan, f"{source}: plan")
        return uniform_plan(
            module,
            weight_bits=self.weight_bits,
            act_bits=self.act_bits,
            exclude=self.modules_to_not_convert,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        value: dict[str, Any] = {"quant_method": self.quant_method.value}
        if self.plan is not None:
            plan = self.plan.to_dict() if isinstance(self.plan, Plan) else self.plan
            digests = {} if self.sha256 is None else {"sha256": dict(self.sha256)}
            return value | {"plan": copy.deepcopy(plan)} | digests
        return value | {
            "weight_bits": self.weight_bits,
            "act_bits": self.act_bits,
            "modules_to_not_convert": self.modules_to_not_convert,
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """The same as `to_dict`: there are no defaults worth leaving out."""
        return self.to_dict()

    @override
    def to_json_string(self, use_diff: bool = True) -> str:
        """The same JSON that stands in config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
