"""Precision in which a compiled denoiser really computes each packed layer."""

from __future__ import annotations

from collections import defaultdict

from torch import nn

from mezzotint.engines.openvino import weights
from mezzotint.engines.openvino.forward import Compilations
from mezzotint.engines.openvino.layer_nodes import layer_names, weight_form
from mezzotint.errors import UsageError
from mezzotint.runtime import Execution, packed_layers
from mezzotint.runtime.executions import different

_INT8 = ("i8", "u8")


def observed_executions(denoiser: nn.Module) -> tuple[Execution, ...]:
    """Read from the compiled model used last: nothing here is a guess.

    `arithmetic` is `int8` where the products of all parts of the layer are, and names both where
    those of some are; `kernel` is OpenVINO's name of the primitive.

    Raises:
        UsageError: the denoiser has not been called yet.
    """
    compilations = denoiser.compilations
    assert isinstance(compilations, Compilations)
    if compilations.latest is None:
        raise UsageError(
            "engine: openvino compiles on the first call, and decides then; call the denoiser once"
        )
    primitives = defaultdict(set)
    for node in compilations.latest.model.get_runtime_model().get_ops():
        for name in layer_names(node):
            primitives[name].add(node.get_rt_info()["primitiveType"].astype(str))
    rows = []
    for name, layer in packed_layers(denoiser).items():
        kinds = sorted(primitives[name])
        arithmetic = different(_arithmetic(kind) for kind in kinds) or "float"
        exact = arithmetic == "int8"
        reasons = {
            weight_form(part, weights.integers(part.packed_weight))[1] for part in layer.parts
        }
        reason = "; ".join(sorted(why for why in reasons if why)) or None
        if not exact and reason is None:
            reason = "OpenVINO chose a floating product"
        rows.append(
            Execution(
                name,
                layer.choice,
                kernel=" ".join(["openvino", *kinds]),
                arithmetic=arithmetic,
                reason=None if exact else reason,
                rounds_inputs=layer.choice.static,
            )
        )
    return tuple(rows)


def _arithmetic(primitive: str) -> str:
    return "int8" if primitive.lower().endswith(_INT8) else "float"
