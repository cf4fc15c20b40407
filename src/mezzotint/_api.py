"""The public names of the package, all imported; `mezzotint` itself imports this on first use."""

from mezzotint import errors
from mezzotint.allocation import allocate
from mezzotint.budget import Budget
from mezzotint.engines import with_engine
from mezzotint.errors import MezzotintError
from mezzotint.hub import MezzotintConfig
from mezzotint.models import Sampling, generate, inventory, list_embedded
from mezzotint.pipeline import Result, apply, load, quantize, quantize_denoiser
from mezzotint.plan import Choice, Plan
from mezzotint.recipes import AutoOptions
from mezzotint.runtime import ConstantTokens, SplitInput
from mezzotint.streaming import PackedCheckpoint, Storage, quantize_checkpoint
from mezzotint.uniform import uniform_plan

__all__ = [
    "AutoOptions",
    "Budget",
    "Choice",
    "ConstantTokens",
    "MezzotintConfig",
    "MezzotintError",
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
    "uniform_plan",
    "with_engine",
]
