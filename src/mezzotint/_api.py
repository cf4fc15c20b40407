"""The public names of the package, all imported; `mezzotint` itself imports this on first use."""

from mezzotint import errors
from mezzotint.allocation import allocate
from mezzotint.checkpoint import MezzotintConfig
from mezzotint.checkpoint.streaming import (
    PackedCheckpoint,
    PlanWithCalls,
    Storage,
    quantize_checkpoint,
)
from mezzotint.checkpoint.verify import verify_checkpoint
from mezzotint.engines import fast_attention
from mezzotint.errors import MezzotintError
from mezzotint.labels import Labels
from mezzotint.loaded_pipeline import load
from mezzotint.models import (
    Call,
    CallSelection,
    Sampling,
    generate,
    inventory,
    list_embedded,
    record_calls,
    recording,
)
from mezzotint.module import ModuleResult, quantize_denoiser, quantize_module
from mezzotint.pipeline import Result, apply, quantize
from mezzotint.plan import Budget, Choice, Encoding, Plan, SimulatedAttention, uniform_plan
from mezzotint.recipes import MPQDM, Auto, MixDQ, Qua2SeDiMo, RecipeName
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labelling import sample_labels
from mezzotint.runtime import (
    ConstantTokens,
    NormSmoothing,
    Smoothing,
    SplitInput,
    StepScales,
    StepWidths,
)
from mezzotint.speed import with_engine
from mezzotint.sweeping import Sweep, SweepPoint, sweep
from mezzotint.tuning import tune

__all__ = [
    "MPQDM",
    "Auto",
    "Budget",
    "Call",
    "CallSelection",
    "Choice",
    "ConstantTokens",
    "Encoding",
    "Labels",
    "MezzotintConfig",
    "MezzotintError",
    "MixDQ",
    "ModuleResult",
    "NormSmoothing",
    "PackedCheckpoint",
    "Plan",
    "PlanWithCalls",
    "Qua2SeDiMo",
    "RecipeName",
    "Result",
    "SampleOptions",
    "Sampling",
    "SimulatedAttention",
    "Smoothing",
    "SplitInput",
    "StepScales",
    "StepWidths",
    "Storage",
    "Sweep",
    "SweepPoint",
    "allocate",
    "apply",
    "errors",
    "fast_attention",
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
    "sample_labels",
    "sweep",
    "tune",
    "uniform_plan",
    "verify_checkpoint",
    "with_engine",
]
