"""Labels of whole configurations, where there are any: what they tell of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mezzotint.errors import UsageError
from mezzotint.predictors import PredictorOptions
from mezzotint.recipes.auto.options import Auto
from mezzotint.recipes.auto.program import IntegerProgram
from mezzotint.recipes.costs import BYTES
from mezzotint.recipes.emphasis import emphasis
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.labelled import labelled_model
from mezzotint.recipes.learning import learned
from mezzotint.recipes.single_noises import single_noises
from mezzotint.recipes.study import Study


@dataclass(frozen=True)
class Lesson:
    """Lessons from labels.

    Attributes:
        emphasis: layer → factor of its weight's noise; empty where labels change nothing.
        context: of the plan, JSON values.
    """

    emphasis: Mapping[str, float] = field(default_factory=dict)
    context: Mapping[str, object] = field(default_factory=dict)


def lesson(study: Study, options: Auto, measuring: Measuring, program: IntegerProgram) -> Lesson:
    """Learn from the labels that the options name; nothing where they name none.

    Raises:
        BankError: the labels are of another model.
        PredictorError: there are too few of them.
        UsageError: they keep constant first tokens out of the quantizers, and the options do not.
    """
    if options.labels is None:
        return Lesson()
    labelled = labelled_model(options.labels, study.job.denoiser)
    if labelled.labels.context.get("bos", False) and not options.bos:
        raise UsageError(
            f"labels: those in {options.labels} were made with constant first tokens kept out of "
            "the quantizers; leave bos on, or sample others without --bos"
        )
    labelled = labelled.with_noises(single_noises(study, labelled, measuring))
    found = learned(options.predictor, labelled.dataset, labelled.blocks, PredictorOptions())
    context = found.context() | {"labels": len(labelled.dataset.values)}
    if found.weighs_alike:
        return Lesson({}, context)
    bytes_limits = [each.maximum for each in program.limits if each.resource == BYTES]
    most = int(min(bytes_limits, default=int(labelled.space.bytes.max(axis=1).sum())))
    return Lesson(emphasis(labelled, found, most), context)
