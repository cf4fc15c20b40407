"""One layer's entry in a plan's JSON, and the choice it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictInt, TypeAdapter, ValidationError

from mezzotint.errors import FormatError, PlanError
from mezzotint.formats import FLOAT
from mezzotint.plan.choice import Choice
from mezzotint.plan.encoding import EncodingModel
from mezzotint.plan.structure import Structure
from mezzotint.plan.structure_registry import structure_named


class _StructureModel(BaseModel):
    """The fields are those of the kind, which knows how to read them."""

    model_config = ConfigDict(extra="allow")
    kind: str

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class LayerModel(BaseModel):
    """An entry as it stands in the file.

    Version 1 wrote a layer's one structure as `constant_tokens` or `split`, 0 for none.
    """

    model_config = ConfigDict(extra="forbid")
    weight: str
    activation: str = FLOAT
    structures: tuple[_StructureModel, ...] = ()
    part_formats: dict[str, str] = {}
    constant_tokens: StrictInt = 0
    split: StrictInt = 0
    encoding: EncodingModel | None = None
    reason: str | None = None


def choice_of(layer: LayerModel, name: str, source: str, version: int) -> Choice:
    """The choice of the layer called `name`, in a plan of that version.

    Raises:
        PlanError: naming `source`, the layer or the field at fault, and what was expected.
    """
    try:
        structures = [*_of_version_1(layer, version)]
        if structures and layer.structures:
            raise FormatError(
                "constant_tokens and split are the older form of structures; keep only structures"
            )
        for index, each in enumerate(layer.structures):
            where = f"{source}: field layers.{name}.structures.{index}"
            structures.append(_structure(each.kind, each.fields, version, where))
        if version <= 2 and layer.part_formats:
            raise FormatError(f"part_formats goes with version 3 and later, not with {version}")
        weight = layer.weight if version > 2 else _wide_scaled(layer.weight)
        formats = tuple(layer.part_formats.items())
        return Choice(weight, layer.activation, tuple(structures), formats)
    except FormatError as cause:
        raise PlanError(f"{source}: layer {name}: {cause}") from cause


def _wide_scaled(weight: str) -> str:
    """A weight format of version 1 or 2, where scales per channel were float32, by its new name."""
    per_channel = re.fullmatch(r"u?int[0-9]+/channel|mixed/[^/]*", weight)
    return weight if per_channel is None else f"{weight}/float32"


def _of_version_1(layer: LayerModel, version: int) -> list[Structure]:
    found = []
    if layer.constant_tokens:
        found.append(_structure("constant_tokens", {"count": layer.constant_tokens}, version))
    if layer.split:
        found.append(_structure("split", {"first": layer.split}, version))
    return found


def _structure(kind: str, fields: Mapping[str, Any], version: int, where: str = "") -> Structure:
    known, meant = structure_named(kind), dict(fields)
    for name, (first, before) in known.since.items():
        if version < first and meant.setdefault(name, before) != before:
            raise PlanError(f"{where}.{name}: goes with version {first} and later, not {version}")
    try:
        # Validated as JSON: lists stand for tuples, and yet nothing is converted.
        found: Structure = TypeAdapter(known).validate_json(json.dumps(meant))
    except ValidationError as cause:
        first_error = cause.errors()[0]
        field = ".".join([where, *map(str, first_error["loc"])])
        raise PlanError(f"{field}: {first_error['msg']}") from cause
    return found
