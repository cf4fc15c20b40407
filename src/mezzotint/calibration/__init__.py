"""Calibration: ranges, moments and sizes of inputs, and structures' tensors, from calls."""

from mezzotint.calibration.gram_matrices import MomentsWork, input_moments, work_of_moments
from mezzotint.calibration.input_noise import input_noises, input_noises_together
from mezzotint.calibration.input_spread import InputSpread, input_spreads
from mezzotint.calibration.needs import (
    calibrated,
    moments_of_plans,
    needing_moments,
    needs_calibration,
    plan_moments,
    with_settings,
)
from mezzotint.calibration.observed_ranges import input_ranges
from mezzotint.calibration.roundable_attention import check_attention
from mezzotint.calibration.sizes import input_sizes
from mezzotint.calibration.step_ranges import step_scales
from mezzotint.calibration.structure_tensors import Refusal, StructureTensors, observe_structures

__all__ = [
    "InputSpread",
    "MomentsWork",
    "Refusal",
    "StructureTensors",
    "calibrated",
    "check_attention",
    "input_moments",
    "input_noises",
    "input_noises_together",
    "input_ranges",
    "input_sizes",
    "input_spreads",
    "moments_of_plans",
    "needing_moments",
    "needs_calibration",
    "observe_structures",
    "plan_moments",
    "step_scales",
    "with_settings",
    "work_of_moments",
]
