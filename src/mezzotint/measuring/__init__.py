"""Measuring what changes of a model cost: change × metric → figures, journaled and resumable."""

from mezzotint.measuring.backward_errors import backward_errors
from mezzotint.measuring.change import Change, InputChange, LayerChange, PlanChange, Unchanged
from mezzotint.measuring.executors import (
    ImageExecutor,
    chosen_executor,
    executor_named,
    generate_with,
    register_executor,
)
from mezzotint.measuring.forecast import Forecast, at_most, task_seconds, tell, timed_call
from mezzotint.measuring.identity import calls_digest, check_weights, model_digest
from mezzotint.measuring.in_process import InProcess
from mezzotint.measuring.input_edge import InputCandidate
from mezzotint.measuring.metrics import (
    Figures,
    ImageError,
    Metric,
    Noise,
    Pair,
    SampleNoise,
    Similarity,
    chosen_metric,
    decibels,
    global_ssim,
    metric_named,
    register_metric,
    relative_noise,
    sample_noises,
    similarity_map,
)
from mezzotint.measuring.original import Original, OriginalImages, with_denoiser
from mezzotint.measuring.probed_layer import CandidateWeight, LayerCandidates
from mezzotint.measuring.prober import Prober
from mezzotint.measuring.probes import MOST_PROBES, Probe, draw_probes
from mezzotint.measuring.probing_seconds import (
    WATCHED,
    CandidateSeconds,
    PassSeconds,
    candidate_seconds,
    middle_layer,
    rounded_inputs,
)
from mezzotint.measuring.projections import Projections
from mezzotint.measuring.ray_cluster import RayCluster
from mezzotint.measuring.recorded_probes import RecordedProbes, recorded_probes
from mezzotint.measuring.replay import CACHE_BYTES, Replay
from mezzotint.measuring.run import (
    Executor,
    ExecutorFactory,
    Measurements,
    Task,
    conditional_key,
    measure,
    measure_layers,
)
from mezzotint.measuring.samples import Samples
from mezzotint.measuring.step_table import StepTable

__all__ = [
    "CACHE_BYTES",
    "MOST_PROBES",
    "WATCHED",
    "CandidateSeconds",
    "CandidateWeight",
    "Change",
    "Executor",
    "ExecutorFactory",
    "Figures",
    "Forecast",
    "ImageError",
    "ImageExecutor",
    "InProcess",
    "InputCandidate",
    "InputChange",
    "LayerCandidates",
    "LayerChange",
    "Measurements",
    "Metric",
    "Noise",
    "Original",
    "OriginalImages",
    "Pair",
    "PassSeconds",
    "PlanChange",
    "Probe",
    "Prober",
    "Projections",
    "RayCluster",
    "RecordedProbes",
    "Replay",
    "SampleNoise",
    "Samples",
    "Similarity",
    "StepTable",
    "Task",
    "Unchanged",
    "at_most",
    "backward_errors",
    "calls_digest",
    "candidate_seconds",
    "check_weights",
    "chosen_executor",
    "chosen_metric",
    "conditional_key",
    "decibels",
    "draw_probes",
    "executor_named",
    "generate_with",
    "global_ssim",
    "measure",
    "measure_layers",
    "metric_named",
    "middle_layer",
    "model_digest",
    "recorded_probes",
    "register_executor",
    "register_metric",
    "relative_noise",
    "rounded_inputs",
    "sample_noises",
    "similarity_map",
    "task_seconds",
    "tell",
    "timed_call",
    "with_denoiser",
]
