"""Ensembles on disk, complete or absent: safetensors and JSON, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mezzotint._files import is_taken, read_json, validated, write_json
from mezzotint._folders import replacing_folder
from mezzotint._tensor_files import write_tensors
from mezzotint.errors import PredictorError, UsageError, first_line
from mezzotint.predictors.dataset import Space
from mezzotint.predictors.features import NodeFeatures
from mezzotint.predictors.monotone_fit import MonotoneFit
from mezzotint.predictors.network import GraphNetwork
from mezzotint.predictors.network_model import NetworkModel
from mezzotint.predictors.options import PredictorOptions
from mezzotint.predictors.predictor import Evidence, Fitted
from mezzotint.predictors.subgraph import Subgraph, Topology
from mezzotint.predictors.sums import SumModel
from mezzotint.predictors.target import Scale

JSON_FILE, TENSORS_FILE = "predictor.json", "predictor.safetensors"

_ARRAYS = ("means", "spreads", "weights")


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _CurveModel(_StrictModel):
    level: FiniteFloat
    linear: NonNegativeFloat
    logarithmic: NonNegativeFloat
    offset: PositiveFloat


class _FoldModel(_StrictModel):
    low: FiniteFloat
    high: FiniteFloat
    curve: _CurveModel


class _EnsembleModel(_StrictModel):
    version: Literal[1]
    kind: str
    options: dict[str, Any]
    keys: tuple[str, ...]
    formats: tuple[str, ...]
    nodes: PositiveInt
    sizes: tuple[PositiveInt, ...]
    ranked: tuple[bool, ...]
    folds: tuple[_FoldModel, ...]


def save_ensemble(fitted: Fitted[NetworkModel], kind: str, folder: Path) -> None:
    """Write a folder; see `Ensemble.save`."""
    if is_taken(folder) and not (folder / JSON_FILE).is_file():
        raise UsageError(f"{folder}: holds something else than a predictor; name a new folder")
    network = fitted.models[0].network
    features, topology = network.features, network.topology
    record = {
        "version": 1,
        "kind": kind,
        "options": fitted.options.to_dict(),
        "keys": list(fitted.space.keys),
        "formats": list(fitted.space.formats),
        "nodes": len(topology.whole.nodes),
        "sizes": list(features.sizes),
        "ranked": list(topology.ranked),
        "folds": [
            asdict(scale) | {"curve": asdict(model.prior.curve)}
            for model, scale in zip(fitted.models, fitted.scales, strict=True)
        ],
    }
    tensors = {
        "categories": features.categories,
        "numbers": features.numbers,
        "edges": topology.whole.edges,
        "slots": topology.slots,
    }
    tensors |= {f"pools/{hop}": pool for hop, pool in enumerate(topology.pools)}
    tensors |= {
        f"evidence/{name}": torch.from_numpy(each) for name, each in vars(fitted.evidence).items()
    }
    for number, model in enumerate(fitted.models):
        state = model.network.state_dict()
        tensors |= {f"folds/{number}/network/{name}": each for name, each in state.items()}
        tensors[f"folds/{number}/costs"] = torch.from_numpy(model.prior.costs)
        tensors |= {
            f"folds/{number}/{name}": torch.from_numpy(getattr(model, name)) for name in _ARRAYS
        }
    # Each tensor on its own: safetensors refuses those that share memory.
    tensors = {name: each.detach().clone() for name, each in tensors.items()}
    try:
        with replacing_folder(folder) as temporary:
            write_tensors(temporary / TENSORS_FILE, tensors)
            write_json(temporary / JSON_FILE, record)
    except OSError as cause:
        raise PredictorError(f"{folder}: cannot be written ({first_line(cause)})") from cause


def load_ensemble(folder: Path, kind: str) -> Fitted[NetworkModel]:
    """Read what `save_ensemble` wrote; see `Ensemble.load`."""
    path = folder / JSON_FILE
    record = validated(_EnsembleModel, read_json(path, PredictorError), path, PredictorError)
    if record.kind != kind:
        raise PredictorError(f"{path}: is a predictor {record.kind!r}, not {kind!r}")
    try:
        options = PredictorOptions(**record.options)
    except (TypeError, UsageError) as cause:
        raise PredictorError(f"{path}: field options: {cause}") from cause
    if len(record.folds) != options.folds or any(each.low >= each.high for each in record.folds):
        raise PredictorError(
            f"{path}: field folds: expected {options.folds}, each with low below high"
        )
    try:
        stored = _Stored(folder / TENSORS_FILE, load_file(folder / TENSORS_FILE))
    except (OSError, ValueError, SafetensorError) as cause:
        raise PredictorError(
            f"{folder / TENSORS_FILE}: cannot be read ({first_line(cause)}); fit it again"
        ) from cause
    features, topology = _features(record, stored), _topology(record, stored)
    models = [
        _model(stored, features, topology, each.curve, f"folds/{number}/")
        for number, each in enumerate(record.folds)
    ]
    evidence = _evidence(record, stored)
    stored.check_all_read()
    scales = tuple(Scale(each.low, each.high) for each in record.folds)
    space = Space(record.keys, record.formats)
    return Fitted(tuple(models), scales, evidence, space, options)


@dataclass(frozen=True, eq=False)
class _Stored:
    """Tensors of a file, each of which is to be read once."""

    path: Path
    tensors: dict[str, Tensor]

    def take(self, name: str, dtype: torch.dtype, shape: tuple[int | None, ...]) -> Tensor:
        """A tensor of that dtype and shape, of finite values; None is any length."""
        if name not in self.tensors:
            raise PredictorError(f"{self.path}: {name} is missing; fit it again")
        found = self.tensors.pop(name)
        fits = len(found.shape) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype != dtype:
            raise PredictorError(
                f"{self.path}: {name} is {found.dtype} of shape {list(found.shape)}; expected "
                f"{dtype} of shape {['any' if want is None else want for want in shape]}"
            )
        if dtype.is_floating_point and not bool(found.isfinite().all()):
            raise PredictorError(f"{self.path}: {name} holds NaN or infinity; fit it again")
        return found

    def indices(self, name: str, shape: tuple[int | None, ...], below: int | Tensor) -> Tensor:
        """An int64 tensor of indices below a number, or below one number per last column."""
        found = self.take(name, torch.int64, shape)
        if not bool(((found >= 0) & (found < below)).all()):
            raise PredictorError(f"{self.path}: {name} holds an index out of range; fit it again")
        return found

    def check_all_read(self) -> None:
        if self.tensors:
            raise PredictorError(f"{self.path}: {min(self.tensors)} is unknown; fit it again")


def _features(record: _EnsembleModel, stored: _Stored) -> NodeFeatures:
    shape = (record.nodes, len(record.formats))
    return NodeFeatures(
        stored.indices("categories", (*shape, len(record.sizes)), torch.tensor(record.sizes)),
        record.sizes,
        stored.take("numbers", torch.float32, (*shape, 2)),
    )


def _topology(record: _EnsembleModel, stored: _Stored) -> Topology:
    edges = stored.indices("edges", (2, None), record.nodes)
    return Topology(
        Subgraph(torch.arange(record.nodes), edges),
        stored.indices("slots", (len(record.keys),), record.nodes),
        tuple(
            stored.indices(f"pools/{hop}", (None,), record.nodes)
            for hop in range(len(record.ranked))
        ),
        record.ranked,
    )


def _model(
    stored: _Stored,
    features: NodeFeatures,
    topology: Topology,
    curve: _CurveModel,
    prefix: str,
) -> NetworkModel:
    with torch.random.fork_rng(devices=[]):  # initial values are drawn, and replaced at once
        network = GraphNetwork(features, topology)
    state: Mapping[str, Tensor] = {
        name: stored.take(f"{prefix}network/{name}", each.dtype, tuple(each.shape))
        for name, each in network.state_dict().items()
    }
    network.load_state_dict(state)
    network.eval()
    shape = (len(topology.slots), features.categories.shape[1])
    costs = stored.take(f"{prefix}costs", torch.float64, shape)
    arrays = [
        stored.take(f"{prefix}{name}", torch.float64, (topology.hops + 1,)).numpy()
        for name in _ARRAYS
    ]
    prior = SumModel(costs.numpy(), MonotoneFit(**dict(curve)))
    return NetworkModel(network, prior, *arrays)


def _evidence(record: _EnsembleModel, stored: _Stored) -> Evidence:
    configurations = stored.indices(
        "evidence/configurations", (None, len(record.keys)), len(record.formats)
    )
    shape = (len(configurations),)
    targets, predicted, bits = (
        stored.take(f"evidence/{name}", torch.float64, shape).numpy()
        for name in ("targets", "predicted", "bits")
    )
    fold = stored.indices("evidence/fold", shape, len(record.folds)).numpy()
    return Evidence(configurations.numpy().astype(np.int64), targets, predicted, bits, fold)
