"""The plan: which format every layer takes, and how. The only place that says so."""

from mezzotint.plan.budget import Budget, parse_latency, parse_size
from mezzotint.plan.calibration_settings import (
    CalibrationSettings,
    CallSelection,
    check_momentum,
)
from mezzotint.plan.call_kwargs import SET_BY_SAMPLING, CallKwargs
from mezzotint.plan.choice import Choice
from mezzotint.plan.components import component_plan, joined_plan
from mezzotint.plan.difference import Difference, Planned, calibration_diff, diff
from mezzotint.plan.encoding import (
    CLIPS,
    FULL,
    ONLY_IN_CHECKPOINT,
    SEARCHES,
    TRAINED,
    Encoding,
    search_named,
    search_text,
)
from mezzotint.plan.layer_shape import LayerShape, Reader
from mezzotint.plan.plan import NAMES_SINCE, VERSION, Plan, dumps
from mezzotint.plan.sampling import Sampling
from mezzotint.plan.simulated_attention import SimulatedAttention
from mezzotint.plan.structure import (
    KINDS,
    NOW,
    Observer,
    Part,
    Parts,
    Structure,
    Tensors,
    check_count,
)
from mezzotint.plan.structure_registry import register_structure, structure_named
from mezzotint.plan.uniform_plans import (
    NO_ACTIVATION_BITS,
    activation_name,
    uniform_choice,
    uniform_plan,
)

__all__ = [
    "CLIPS",
    "FULL",
    "KINDS",
    "NAMES_SINCE",
    "NOW",
    "NO_ACTIVATION_BITS",
    "ONLY_IN_CHECKPOINT",
    "SEARCHES",
    "SET_BY_SAMPLING",
    "TRAINED",
    "VERSION",
    "Budget",
    "CalibrationSettings",
    "CallKwargs",
    "CallSelection",
    "Choice",
    "Difference",
    "Encoding",
    "LayerShape",
    "Observer",
    "Part",
    "Parts",
    "Plan",
    "Planned",
    "Reader",
    "Sampling",
    "SimulatedAttention",
    "Structure",
    "Tensors",
    "activation_name",
    "calibration_diff",
    "check_count",
    "check_momentum",
    "component_plan",
    "diff",
    "dumps",
    "joined_plan",
    "parse_latency",
    "parse_size",
    "register_structure",
    "search_named",
    "search_text",
    "structure_named",
    "uniform_choice",
    "uniform_plan",
]
