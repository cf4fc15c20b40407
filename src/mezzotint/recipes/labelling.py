"""Labels of a pipeline's configurations: drawn, and measured into the journal of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from diffusers import DiffusionPipeline

from mezzotint._files import write_json
from mezzotint._journal import Journal
from mezzotint.bank import Bank
from mezzotint.errors import ModelError
from mezzotint.labels import (
    Configuration,
    ConfigurationChange,
    LabelHeader,
    Labels,
    StoredSizes,
    check_count,
    sampled,
)
from mezzotint.labels.header import GRAPH_FILE, HEADER_FILE, JOURNAL_FILE
from mezzotint.measuring import (
    ExecutorFactory,
    InProcess,
    Metric,
    Original,
    Task,
    Unchanged,
    chosen_executor,
)
from mezzotint.models import (
    Sampling,
    check_pipeline,
    evaluating,
    find_denoiser,
    model_name,
    note_source_dtypes,
    weight_graph,
)
from mezzotint.plan import Budget
from mezzotint.recipes.default_prompts import default_sampling, usual_count
from mezzotint.recipes.given import check_sampling
from mezzotint.recipes.job import Job, MeasuringSettings, check_floating
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.labels_folder import bank_of, check_is_ours, header_of, held
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration


def sample_labels(
    pipe: DiffusionPipeline,
    folder: str | Path,
    options: SampleOptions | None = None,
    *,
    sampling: Sampling | None = None,
    executor: str | ExecutorFactory | None = None,
) -> Labels:
    """Draw configurations of the pipeline's denoiser, and measure each.

    Finished labels are kept in the folder: an interrupted run goes on, and one that asks for more
    adds to them.

    Args:
        pipe: a floating text-to-image pipeline; left as it is.
        folder: for the bank of quantized layers, the graph and the labels.
        options: what to measure.
        sampling: prompts of the images, or of the calls, and all else that the pipeline is called
            with; by default the model's own prompts, or general ones. They repeat with other seeds
            where more are needed. Without one, the first seed is that of the options.
        executor: name of what measures, such as `ray`, or makes that, given the floating model; by
            default this process does.

    Raises:
        LabelError: the folder holds labels of something else, or cannot be written.
        BankError: it holds a bank of other weights.
        UsageError: an option is out of its domain, or another process is at the same folder.
        CalibrationError: weights or outputs of the floating model hold NaN.
    """
    check_pipeline(pipe)
    check_sampling(sampling)
    options = options or SampleOptions()
    options.measure.check_available()
    check_is_ours(Path(folder))
    _, denoiser = find_denoiser(pipe)
    check_floating(type(denoiser).__name__, denoiser)
    note_source_dtypes(pipe)
    sampling = _sampling(pipe, options, sampling)
    # Calls for rounding come from fewer prompts than what is judged by images.
    few = sampling.part(0, usual_count(pipe))
    job = Job(
        denoiser,
        model_name(pipe),
        Budget(),
        pipe,
        sampling if options.measure.sees == "outputs" else few,
        measuring=MeasuringSettings(executor=chosen_executor(executor)),
    )
    with evaluating(denoiser), labelling(job, Path(folder), options, sampling) as work:
        work.measured(work.drawn(options))
        return Labels.read(folder)


@dataclass(frozen=True, eq=False)
class Labelling:
    """A model whose configurations are being labelled.

    Attributes:
        keys: of the weights that have a choice, in the order of the graph.
        bank: all candidates of all weights.
        formats: of the candidates.
        metric: makes the labels.
        measuring: its journal holds them.
    """

    keys: tuple[str, ...]
    bank: Bank
    formats: tuple[str, ...]
    metric: Metric
    measuring: Measuring

    def drawn(self, options: SampleOptions) -> tuple[Configuration, ...]:
        """Configurations at random, as the options say.

        Raises:
            UsageError: there are not as many.
        """
        sizes = StoredSizes(
            np.array([[self.bank.stored_bytes(k, f) for f in self.formats] for k in self.keys]),
            np.array([self.bank.weights(key) for key in self.keys]),
        )
        stratify = sizes if options.stratify else None
        return sampled(self.keys, self.formats, options.count, options.seed, stratify=stratify)

    def measured(self, configurations: Sequence[Configuration]) -> list[float]:
        """The label of each configuration, and the floor; those in the journal are not measured.

        Infinite where a configuration ruins the model.

        Raises:
            BankError, UsageError: a configuration names no candidate of this model.
        """
        changes = [
            ConfigurationChange.of(each, self.bank, self.keys, self.formats)
            for each in configurations
        ]
        tasks = [Task(change, self.metric) for change in (Unchanged(), *changes)]
        figures = self.measuring.figures(tasks, "Labelling")
        return [self.metric.loss(each) for each in figures[1:]]


@contextmanager
def labelling(
    job: Job, folder: Path, options: SampleOptions, sampling: Sampling
) -> Iterator[Labelling]:
    """Open a folder of labels, or begin one.

    Args:
        job: the floating pipeline, with the prompts of its calls; in evaluation mode.
        folder: for everything.
        options: metric, formats and rounding.
        sampling: of images, where the metric sees some.

    Raises:
        LabelError: the folder holds labels of something else, or cannot be written.
        BankError: it holds a bank of other weights.
        UsageError: an option is out of its domain, or another process is at the same folder.
    """
    metric = options.measure
    study = Study.of(job, bos=options.bos, shortcuts="concatenations", momentum=None)
    if study.graph.tied:
        name, first = next(iter(study.graph.tied.items()))
        raise ModelError(
            f"layers {name} and {first} share one weight, which packed layers do not: each stores "
            "codes of its own, and labels would count one of them; give each a weight of its own"
        )
    original = Original(job.denoiser, study.calls, pipe=job.pipe, sampling=sampling)
    header = header_of(study, original, options)
    graph = weight_graph(job.denoiser, study.graph, study.structures.splits)
    keys = tuple(node.key for node in graph.weights if node.quantizable)
    check_count(len(keys), len(options.formats), options.count)
    if metric.sees == "images":
        metric.check_images(original.images.images)
    with held(folder):
        if (folder / HEADER_FILE).is_file():
            LabelHeader.load(folder / HEADER_FILE).check(header, folder)
        bank = bank_of(folder, study, graph, options)
        graph.save(folder / GRAPH_FILE)
        if not (folder / HEADER_FILE).is_file():
            write_json(folder / HEADER_FILE, header.to_dict())
        with Journal(folder / JOURNAL_FILE, header.to_dict()) as journal:
            calibration = Calibration(tensors=study.structures.constants, encoded=bank)
            original = replace(original, calibration=calibration)
            measuring = Measuring(original, job.measuring.executor or InProcess, journal)
            yield Labelling(keys, bank, options.formats, metric, measuring)


def label_images(
    pipe: DiffusionPipeline, options: SampleOptions, sampling: Sampling | None = None
) -> int:
    """Number of images that `sample_labels` compares, or whose calls it records."""
    count = options.measure.prompts or options.images
    if count is None:
        count = usual_count(pipe) if sampling is None else len(sampling)
    return count


def _sampling(
    pipe: DiffusionPipeline, options: SampleOptions, sampling: Sampling | None
) -> Sampling:
    """The images, or those of the calls."""
    count = label_images(pipe, options, sampling)
    if sampling is None:
        return default_sampling(pipe, count, options.seed)
    return sampling.repeated(count)
