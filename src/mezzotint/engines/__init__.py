"""Engines that compute a denoiser: torch, layer by layer, or a compiler that takes it whole."""

from mezzotint.engines import eager, openvino
from mezzotint.engines.engine import (
    AUTO,
    Engine,
    attach_engine,
    check_engine,
    engine_executions,
    engine_named,
    engine_of,
    engines,
    register_engine,
)
from mezzotint.engines.fast_attention import fast_attention

#: Modules that register an engine when imported.
BUILT_IN_ENGINES = (openvino, eager)

__all__ = [
    "AUTO",
    "BUILT_IN_ENGINES",
    "Engine",
    "attach_engine",
    "check_engine",
    "engine_executions",
    "engine_named",
    "engine_of",
    "engines",
    "fast_attention",
    "register_engine",
]
