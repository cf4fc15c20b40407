"""Qua²SeDiMo applied to one model: its labels, and the bytes that its weights may store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mezzotint.calibration import check_attention
from mezzotint.errors import UsageError
from mezzotint.plan import Plan, activation_name
from mezzotint.predictors import predictor_named
from mezzotint.recipes.costs import choice_bytes, floating_bytes
from mezzotint.recipes.job import Job
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.labelled import LabelledModel, labelled_model
from mezzotint.recipes.learning import BEST
from mezzotint.recipes.qua2sedimo.byte_window import ByteWindow, byte_window
from mezzotint.recipes.qua2sedimo.decision import Question
from mezzotint.recipes.qua2sedimo.options import Qua2SeDiMo
from mezzotint.recipes.search_space import Rows, SearchSpace
from mezzotint.recipes.single_noises import single_noises
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration


@dataclass(frozen=True, eq=False)
class Method:
    """The method at work.

    Attributes:
        study: layers, calls and structures of the floating denoiser.
        options: the method's switches.
        labelled: the labels, and the bank that they are of.
        calibration: of everything that the bank's layers need beside it.
        measuring: runs and journals measurements.
    """

    study: Study
    options: Qua2SeDiMo
    labelled: LabelledModel
    calibration: Calibration
    measuring: Measuring

    @property
    def question(self) -> Question:
        """All that a decision goes by."""
        return Question(self.labelled, self.window, self.options)

    @property
    def space(self) -> SearchSpace:
        """Weights, formats and blocks."""
        return self.labelled.space

    @cached_property
    def window(self) -> ByteWindow:
        """The bytes of all weights that the budget asks for.

        Raises:
            InfeasibleBudgetError: no configuration stores as many; names the nearest that does.
        """
        budget, fixed = self.study.job.budget, self.structure_bytes
        limits: list[float] = []
        if budget.weight_bits is not None:
            limits.append(budget.weight_bits * int(self.space.sizes.sum()) / 8 - fixed)
        if budget.bytes is not None:
            names = {node.layer for node in self.labelled.dataset.graph.weights}
            layers = [layer for layer in self.study.layers if layer.name in names]
            limits.append(budget.bytes - floating_bytes(self.study.job.denoiser, layers) - fixed)
        return byte_window(self.space, min(limits))

    @cached_property
    def structure_bytes(self) -> int:
        """Bytes that layers store beside the weights of their parts, whatever their formats."""
        first = np.zeros(len(self.space.keys), dtype=np.int64)
        choices, study = self.bare_plan(first).choices, self.study
        layers = [layer for layer in study.layers if layer.name in choices]
        stored = sum(
            choice_bytes(layer, choices[layer.name], study.weight(layer)) for layer in layers
        )
        return stored - int(self.space.stored(first))

    def bare_plan(self, configuration: Rows) -> Plan:
        """The plan of a configuration: what decides its bytes."""
        activation = activation_name(self.study.job.budget.act_bits)
        return self.labelled.bank.plan(self.space.named(configuration), activation=activation)

    def context(self) -> dict[str, object]:
        """Origin of the plan, as JSON values."""
        return self.study.context() | {
            "recipe": "qua2sedimo",
            "options": dataclasses.asdict(self.options),
            "labels": len(self.labelled.dataset.values),
        }


@contextmanager
def prepared(job: Job, options: Qua2SeDiMo) -> Iterator[Method]:
    """Read the labels, record calls, and open the journal.

    Raises:
        UsageError: no labels are given, or there is no such predictor; or operands of the
            denoiser's attention are to be rounded, and cannot be.
        LabelError: the labels are of another model.
        ModelError: there is nothing to quantize.
    """
    if options.labels is None:
        raise UsageError(
            "labels: none given; make some with `mezzotint sample MODEL --journal FOLDER`, and "
            "name the folder"
        )
    _check_predictor(options)  # before anything is probed or recorded
    labelled = labelled_model(Path(options.labels), job.denoiser)
    # Joined inputs are split as the bank has them, which the labels were made with.
    bos = bool(labelled.labels.context.get("bos", False))
    study = Study.of(job, bos=bos, shortcuts="none", momentum=None)
    if options.attention is not None:
        check_attention(job.denoiser, options.attention, study.calls[0])
    calibration = Calibration(tensors=study.structures.constants, encoded=labelled.bank)
    with study.measuring(calibration) as measuring:
        if options.learner == BEST or predictor_named(options.learner).reads_noises:
            labelled = labelled.with_noises(single_noises(study, labelled, measuring))
        yield Method(study, options, labelled, calibration, measuring)


_OF_TRAINING = ("loss", "hop_weight", "epochs", "patience", "batch", "oversample")
"""Options that predictors without epochs have no use for."""


def _check_predictor(options: Qua2SeDiMo) -> None:
    """Refuse a predictor that there is not, and options that it would pass over.

    Raises:
        UsageError: naming the predictor, or the option.
    """
    if options.learner == BEST or predictor_named(options.learner).trains:
        return
    for name in _OF_TRAINING:
        if getattr(options, name) != Qua2SeDiMo.usual(name):
            raise UsageError(
                f"{name}: predictor {options.learner!r} is not trained in epochs, and would pass "
                "it over; leave it out, or use predictor 'network' or 'residual'"
            )
