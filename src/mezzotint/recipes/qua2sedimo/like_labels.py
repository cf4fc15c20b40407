"""Measurements of further configurations by the metric of the labels, on their seeds or others."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mezzotint._resuming import digest
from mezzotint.bank import Bank
from mezzotint.errors import UsageError
from mezzotint.labels import Configuration, ConfigurationChange, label_metric
from mezzotint.measuring import Metric, Original, calls_digest
from mezzotint.models import Sampling, on_device, record_calls
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.qua2sedimo.method import Method
from mezzotint.recipes.search_space import Floats, Rows, SearchSpace

GROUPS = 8
"""Parts of the held-out seeds, each of which says by itself which of two configurations is better.

Their differences tell the standard error of the gain.
"""


@dataclass(frozen=True, eq=False)
class LikeLabels:
    """The labels' metric on one group of seeds, or on several.

    Attributes:
        method: has the bank, and what the space is of.
        metric: of the labels, on as many images as a group has.
        groups: a floating model with the seeds of each group; all share the method's journal.
    """

    method: Method
    metric: Metric
    groups: tuple[Measuring, ...]

    def losses(self, rows: Rows, label: str) -> Floats:
        """The metric of each configuration on each group, float64 [n, groups].

        Infinite where a configuration ruins the model.

        Args:
            rows: format indices [n, weights].
            label: of the progress bar.
        """
        space, bank = self.method.space, self.method.labelled.bank
        known_by = bank_name(bank, space)  # the journal is that of a recipe, whatever its labels
        changes = [
            replace(
                ConfigurationChange.of(
                    Configuration(space.named(row)), bank, space.keys, space.formats
                ),
                bank=known_by,
            )
            for row in rows
        ]
        found = [each.losses(changes, self.metric, label) for each in self.groups]
        return np.array(found, dtype=np.float64).T


def bank_name(bank: Bank, space: SearchSpace) -> str:
    """A hash of all that texts of configurations leave out: weights, formats and rounding."""
    return digest(
        {
            "weights": bank.digest,
            "keys": list(space.keys),
            "formats": list(space.formats),
            "encoding": bank.encoding.to_dict(),
            "inputs": bank.inputs,
        }
    )


def on_label_seeds(method: Method) -> LikeLabels:
    """The labels' metric on the prompts and seeds of the labels: what it finds is a label."""
    sampling = _sampling(method)
    context = method.labelled.labels.context
    metric = label_metric(context["metric"], context["images"])
    return LikeLabels(method, metric, (_group(method, metric, sampling),))


def on_held_out_seeds(method: Method, *, again: bool = False) -> LikeLabels:
    """The labels' metric on their prompts, but on seeds that no label has seen, in groups.

    Args:
        method: has the labels.
        again: on other such seeds, which those of the first time have not seen either.

    Raises:
        UsageError: there are too few prompts, or the metric takes more images than a group has.
    """
    sampling = _sampling(method)
    images = len(sampling)
    size = images // GROUPS
    if size < 1:
        raise UsageError(
            f"trades: the labels have {images} prompts, too few for {GROUPS} groups of "
            "held-out seeds; leave it out"
        )
    context = method.labelled.labels.context
    metric = label_metric(context["metric"], None if context["images"] is None else size)
    groups, first = [], sampling.seed + images * (2 if again else 1)
    for start in range(0, GROUPS * size, size):
        seed = first + start
        part = sampling.picked(range(start, start + size), seed)
        groups.append(_group(method, metric, part))
    return LikeLabels(method, metric, tuple(groups))


def _sampling(method: Method) -> Sampling:
    """Prompts and seeds of the labels.

    Raises:
        UsageError: there is no pipeline to make their images or calls again.
    """
    if method.study.job.pipe is None:
        raise UsageError(
            "second_round, trades: take a pipeline, whose images or calls are labelled; leave them "
            "out"
        )
    return method.labelled.sampling


def _group(method: Method, metric: Metric, sampling: Sampling) -> Measuring:
    """The floating model with some seeds, on the method's journal."""
    job, before = method.study.job, method.measuring.original
    original = Original(
        job.denoiser, before.calls, method.calibration, job.pipe, sampling, before.momentum
    )
    if metric.sees == "outputs":
        assert job.pipe is not None, "labels of a pipeline's calls"
        calls = on_device(record_calls(job.pipe, sampling), job.denoiser)
        original = replace(original, calls=calls, part=calls_digest(calls))
    return replace(method.measuring, original=original)
