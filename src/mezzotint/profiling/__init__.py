"""Milliseconds that every layer takes under every choice, on this machine."""

from mezzotint.profiling.cached_profile import cache_file, candidates, profile_pipeline
from mezzotint.profiling.measure import CANDIDATES, measure_profile
from mezzotint.profiling.medians import Latency, interleaved_medians, wait_for_accelerator
from mezzotint.profiling.predict import (
    PlanLatency,
    check_profile,
    latency_context,
    milliseconds,
    plan_latency,
    predict,
)
from mezzotint.profiling.profile import Figure, LayerProfile, Profile
from mezzotint.profiling.quick_profile import QUICK, quick_profile
from mezzotint.profiling.runs import (
    Runs,
    Sample,
    Subject,
    Work,
    first_call,
    first_calls,
    watch_runs,
)
from mezzotint.profiling.summary import slowest_table, totals_table
from mezzotint.profiling.timer import Timer
from mezzotint.runtime.cpu.machine import Machine

__all__ = [
    "CANDIDATES",
    "QUICK",
    "Figure",
    "Latency",
    "LayerProfile",
    "Machine",
    "PlanLatency",
    "Profile",
    "Runs",
    "Sample",
    "Subject",
    "Timer",
    "Work",
    "cache_file",
    "candidates",
    "check_profile",
    "first_call",
    "first_calls",
    "interleaved_medians",
    "latency_context",
    "measure_profile",
    "milliseconds",
    "plan_latency",
    "predict",
    "profile_pipeline",
    "quick_profile",
    "slowest_table",
    "totals_table",
    "wait_for_accelerator",
    "watch_runs",
]
