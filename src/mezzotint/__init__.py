"""Mixed-precision quantization of diffusion models: measure, allocate, pack, report.

>>> import mezzotint as mz
>>> pipe = mz.load("emoji-turbo")
>>> result = mz.quantize(pipe, budget=mz.Budget(weight_bits=4, act_bits=8))
>>> result.save("owl-w4a8")
"""

from mezzotint import errors
from mezzotint.allocation import allocate
from mezzotint.engines import with_engine
from mezzotint.errors import MezzotintError
from mezzotint.hub import MezzotintConfig, register_with_diffusers
from mezzotint.models import (
    Call,
    Sampling,
    generate,
    inventory,
    list_embedded,
    record_calls,
    recording,
)
from mezzotint.module import ModuleResult, quantize_module
from mezzotint.pipeline import Result, apply, load, quantize, quantize_denoiser
from mezzotint.plan import Budget, Choice, Encoding, Plan, uniform_plan
from mezzotint.recipes import Auto, MixDQ
from mezzotint.runtime import ConstantTokens, SplitInput
from mezzotint.streaming import PackedCheckpoint, Storage, quantize_checkpoint

__version__ = "0.1.0"

register_with_diffusers()

__all__ = [
    "Auto",
    "Budget",
    "Call",
    "Choice",
    "ConstantTokens",
    "Encoding",
    "MezzotintConfig",
    "MezzotintError",
    "MixDQ",
    "ModuleResult",
    "PackedCheckpoint",
    "Plan",
    "Result",
    "Sampling",
    "SplitInput",
    "Storage",
    "allocate",
    "apply",
    "errors",
    "generate",
    "inventory",
    "list_embedded",
    "load",
    "quantize",
    "quantize_checkpoint",
    "quantize_denoiser",
    "quantize_module",
    "record_calls",
    "recording",
    "uniform_plan",
    "with_engine",
]
