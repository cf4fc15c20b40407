"""OpenVINO models compiled for this processor, from memory or from disk."""

from __future__ import annotations

import gc
import importlib
import io
import re
from contextlib import suppress
from functools import cache
from typing import Any

import openvino as ov
import torch
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from mezzotint.engines.openvino.arguments import Arguments
from mezzotint.engines.openvino.call_digest import call_digest
from mezzotint.engines.openvino.conversion import converted
from mezzotint.engines.openvino.kept_models import OUTPUT_TYPE, Facts, KeptModel, ModelStore
from mezzotint.runtime import packed_layers
from mezzotint.runtime.pages import give_back, give_back_file, make_room


def compile_denoiser(denoiser: nn.Module, arguments: Arguments) -> tuple[ov.CompiledModel, type]:
    """A denoiser compiled for calls like this one, and the type of its output.

    The graph is taken from disk where it was made before, else written there, and its weights are
    mapped from that file: none is held twice but in the layout that OpenVINO multiplies.

    Raises:
        ModelError: OpenVINO cannot convert it.
        UsageError: MEZZOTINT_OPENVINO_CACHE is no number of gigabytes.
    """
    store = ModelStore.of_user()
    digest = None if store is None else call_digest(denoiser, arguments)
    if store is None or digest is None:
        return _from_memory(*converted(denoiser, arguments), denoiser)
    if (kept := store.find(digest)) is not None:
        # Another process may have made room by it, or it may be damaged.
        with suppress(OSError, RuntimeError, ImportError):
            output = _type_named(kept.facts.output)
            return _from_disk(store, kept, denoiser), output
    model, output = converted(denoiser, arguments)
    kept = _kept(store, digest, model, output)
    if kept is None:
        return _from_memory(model, output, denoiser)
    del model  # its weights are on disk
    try:
        return _from_disk(store, kept, denoiser), output
    except (OSError, RuntimeError):
        if kept.graph.exists():
            raise
    return _from_memory(*converted(denoiser, arguments), denoiser)


def _kept(store: ModelStore, digest: str, model: ov.Model, output: type) -> KeptModel | None:
    """The model as it stands on disk now; None where it cannot."""
    name = f"{output.__module__}:{output.__qualname__}"
    if re.fullmatch(OUTPUT_TYPE, name) is None:
        return None
    facts = Facts(output=name, scales_group_norms=_scales_group_norms(model))
    return store.keep(digest, model, facts)


def _from_memory(
    model: ov.Model, output: type, denoiser: nn.Module
) -> tuple[ov.CompiledModel, type]:
    options = _options(denoiser, _scales_group_norms(model))
    return ov.Core().compile_model(model, "CPU", options), output


def _from_disk(store: ModelStore, kept: KeptModel, denoiser: nn.Module) -> ov.CompiledModel:
    """The kept model compiled, or as it was compiled before.

    Raises:
        OSError, RuntimeError: it was removed meanwhile.
    """
    for layer in packed_layers(denoiser).values():
        for tensor in layer.state_dict().values():
            give_back(tensor)
    # Memory of a conversion goes back, where there was one just now.
    gc.collect()
    make_room(kept.weights.stat().st_size)
    core, options = ov.Core(), _options(denoiser, kept.facts.scales_group_norms)
    place = kept.compiled(options)
    # OpenVINO's word for results that refer to the graph's own file of weights.
    small = {"CACHE_MODE": "OPTIMIZE_SIZE"}
    found = None
    with suppress(OSError, RuntimeError):
        weights = {"WEIGHTS_PATH": str(kept.weights)}
        found = core.import_model(io.BytesIO(place.read_bytes()), "CPU", options | small | weights)
    if found is None:
        found = core.compile_model(core.read_model(kept.graph), "CPU", options | small)
        store.keep_compiled(kept, place, found.export_model().getvalue())
    give_back_file(kept.weights)
    return found


def _type_named(name: str) -> type:
    """The type of that name.

    Raises:
        RuntimeError: it is none that a denoiser returns.
        ImportError: there is no such module.
    """
    module, _, kind = name.partition(":")
    found = getattr(importlib.import_module(module), kind, None)
    if found in (tuple, Tensor) or (isinstance(found, type) and issubclass(found, BaseOutput)):
        return found
    raise RuntimeError(name)


def precision(denoiser: nn.Module) -> str:
    """Precision of floating arithmetic: bfloat16 where the model is, and the processor can."""
    dtype = next((p.dtype for p in denoiser.parameters() if p.is_floating_point()), torch.float32)
    return "bf16" if dtype == torch.bfloat16 and _has_bfloat16() else "f32"


def _options(denoiser: nn.Module, scales_group_norms: bool) -> dict[str, Any]:
    """Options of compiling, on as many threads as torch has."""
    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision(denoiser),
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # OpenVINO would round inputs that the plan leaves floating.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if scales_group_norms:
        options["SNIPPETS_MODE"] = "DISABLE"
    return options


def _scales_group_norms(model: ov.Model) -> bool:
    """True where a group norm is multiplied, as in U-Nets whose timestep scales and shifts.

    OpenVINO 2026.4 ends the process where it generates code for such a pair in float32.
    """
    return any(
        reader.get_node().get_type_name() == "Multiply"
        for operation in model.get_ops()
        if operation.get_type_name() == "GroupNormalization"
        for reader in operation.output(0).get_target_inputs()
    )


@cache
def _has_bfloat16() -> bool:
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
