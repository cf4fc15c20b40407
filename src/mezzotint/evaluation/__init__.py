"""Closeness of a quantized pipeline to its original; its size and its speed."""

from mezzotint.evaluation.alignment import (
    Contrastive,
    RPrecision,
    first_ranks,
    mean_alignment,
    r_precision,
)
from mezzotint.evaluation.baseline import Baseline
from mezzotint.evaluation.bench import Bench, BenchedDenoiser, bench
from mezzotint.evaluation.bootstrap import Interval, bootstrap_interval, paired_difference_interval
from mezzotint.evaluation.call_times import CallTimes, EngineTime, Source, call_times, others
from mezzotint.evaluation.caption_score import caption_score
from mezzotint.evaluation.comparison import Evaluation
from mezzotint.evaluation.contrastive import (
    contrastive_for,
    embedded_contrastive,
    load_contrastive,
)
from mezzotint.evaluation.distribution import FDLite0, fd_lite0, frechet_distance
from mezzotint.evaluation.engine_trials import (
    Trials,
    able_engines,
    calls_of,
    engine_refusals,
    engine_trials,
    packed_denoisers,
    run_calls,
)
from mezzotint.evaluation.error import StepError, error_by_timestep, sqnr
from mezzotint.evaluation.evaluate import evaluate
from mezzotint.evaluation.features import lite0_features, load_lite0
from mezzotint.evaluation.footprint import peak_rss_bytes, stored_bytes
from mezzotint.evaluation.paired import psnr, ssim
from mezzotint.runtime import module_bytes

__all__ = [
    "Baseline",
    "Bench",
    "BenchedDenoiser",
    "CallTimes",
    "Contrastive",
    "EngineTime",
    "Evaluation",
    "FDLite0",
    "Interval",
    "RPrecision",
    "Source",
    "StepError",
    "Trials",
    "able_engines",
    "bench",
    "bootstrap_interval",
    "call_times",
    "calls_of",
    "caption_score",
    "contrastive_for",
    "embedded_contrastive",
    "engine_refusals",
    "engine_trials",
    "error_by_timestep",
    "evaluate",
    "fd_lite0",
    "first_ranks",
    "frechet_distance",
    "lite0_features",
    "load_contrastive",
    "load_lite0",
    "mean_alignment",
    "module_bytes",
    "others",
    "packed_denoisers",
    "paired_difference_interval",
    "peak_rss_bytes",
    "psnr",
    "r_precision",
    "run_calls",
    "sqnr",
    "ssim",
    "stored_bytes",
]
