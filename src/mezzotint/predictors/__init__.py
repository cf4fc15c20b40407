"""Predictors of a configuration's quality from labels of others: graph networks and baselines."""

from mezzotint.predictors.dataset import Dataset, Space
from mezzotint.predictors.ensemble import Ensemble, ResidualEnsemble
from mezzotint.predictors.folds import Fold, folds_of
from mezzotint.predictors.judged import FoldFigures, averages, differences, judged
from mezzotint.predictors.options import HopWeight, PredictorOptions, RankLoss
from mezzotint.predictors.predictor import (
    Evidence,
    Fitted,
    FoldModel,
    FoldTask,
    Prediction,
    Predictor,
    predictor_named,
    predictors,
    register_predictor,
)
from mezzotint.predictors.ridge import RidgeOnChoices, RidgeOnNoises
from mezzotint.predictors.sums import SingleNoises, StoredBits, SumPredictor, WeightErrors
from mezzotint.predictors.target import Scale, Target
from mezzotint.predictors.transfer import RoleEffects
from mezzotint.predictors.trees import BoostedTrees

__all__ = [
    "BoostedTrees",
    "Dataset",
    "Ensemble",
    "Evidence",
    "Fitted",
    "Fold",
    "FoldFigures",
    "FoldModel",
    "FoldTask",
    "HopWeight",
    "Prediction",
    "Predictor",
    "PredictorOptions",
    "RankLoss",
    "ResidualEnsemble",
    "RidgeOnChoices",
    "RidgeOnNoises",
    "RoleEffects",
    "Scale",
    "SingleNoises",
    "Space",
    "StoredBits",
    "SumPredictor",
    "Target",
    "WeightErrors",
    "averages",
    "differences",
    "folds_of",
    "judged",
    "predictor_named",
    "predictors",
    "register_predictor",
]
