"""The index of a bank: what it holds of each layer, and of which weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

from mezzotint._files import JsonFile, validated
from mezzotint.errors import BankError, MezzotintError
from mezzotint.plan import Plan

VERSION = 2
"""Banks of version 1 have no digests of their tensors."""


class Candidate(BaseModel):
    """One stored form of a weight.

    Attributes:
        bytes: of all its stored tensors, scales and levels included.
        error: mean of |w - ŵ|^2.4 over its weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: PositiveInt
    error: NonNegativeFloat = Field(allow_inf_nan=False)


class BankedWeight(BaseModel):
    """One weight that is quantized by itself, in all its stored forms.

    Attributes:
        weights: number of weights.
        candidates: weight format → its stored form.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    weights: PositiveInt
    candidates: Mapping[str, Candidate]


class BankedLayer(BaseModel):
    """The weights of one layer.

    Attributes:
        digest: of the floating weight.
        nodes: key → weight, in the order of the layer's quantizers.
        sha256: tensor of the layer's file → SHA-256; None in banks of version 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    digest: str
    nodes: Mapping[str, BankedWeight] = Field(min_length=1)
    sha256: Mapping[str, str] | None = None


class _IndexModel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Literal[1, 2]
    plan: dict[str, Any]
    inputs: str | None
    layers: Mapping[str, BankedLayer]


@dataclass(frozen=True)
class BankIndex(JsonFile):
    """Content of a bank, without the stored tensors.

    Attributes:
        plan: layer → its first candidate, which has the structures of all; and the encoding.
        inputs: digest of the moments of inputs that the rounding knew; None where it knew none.
        layers: name → what there is of it, in the order of the plan.

    Raises:
        BankError: the plan is of other layers.
    """

    error: ClassVar[type[MezzotintError]] = BankError
    FILE: ClassVar[str] = "bank.json"

    plan: Plan
    inputs: str | None
    layers: Mapping[str, BankedLayer]

    def __post_init__(self) -> None:
        if [*self.plan] != [*self.layers]:
            raise BankError("field plan: is of other layers than field layers; build the bank anew")

    @cached_property
    def nodes(self) -> dict[str, BankedWeight]:
        """All weights by key."""
        return {key: node for layer in self.layers.values() for key, node in layer.nodes.items()}

    @cached_property
    def digest(self) -> str:
        """A hash of all floating weights, with the names of their layers."""
        digests = {name: layer.digest for name, layer in self.layers.items()}
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` reads them back."""
        return {
            "version": VERSION,
            "plan": self.plan.to_dict(),
            "inputs": self.inputs,
            "layers": {name: layer.model_dump() for name, layer in self.layers.items()},
        }

    @classmethod
    def from_dict(cls, value: Any, source: str = "bank") -> BankIndex:
        """Validate and build.

        Raises:
            BankError: naming `source`, the field at fault and what was expected.
            PlanError: its field `plan` is no plan.
        """
        model = validated(_IndexModel, value, source, BankError)
        plan = Plan.from_dict(model.plan, f"{source}: field plan")
        try:
            return cls(plan, model.inputs, model.layers)
        except BankError as cause:
            raise BankError(f"{source}: {cause}") from cause
