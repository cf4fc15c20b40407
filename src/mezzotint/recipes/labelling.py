"""Labels of a pipeline's configurations: study, bank, and the journal of what is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from filelock import FileLock, Timeout

from mezzotint._files import write_json
from mezzotint._journal import Journal
from mezzotint.bank import Bank
from mezzotint.errors import LabelError, ModelError, UsageError
from mezzotint.formats import QUA2SEDIMO, parse_weight_format
from mezzotint.labels import (
    PUBLISHED_FORMATS,
    Configuration,
    ConfigurationChange,
    LabelHeader,
    Labels,
    StoredSizes,
    label_metric,
    sampled,
)
from mezzotint.labels.header import BANK_FOLDER, GRAPH_FILE, HEADER_FILE, JOURNAL_FILE
from mezzotint.measuring import (
    ExecutorFactory,
    InProcess,
    Metric,
    Original,
    Task,
    Unchanged,
    calls_digest,
    chosen_executor,
    model_digest,
)
from mezzotint.models import (
    Sampling,
    WeightGraph,
    evaluating,
    find_denoiser,
    model_name,
    note_source_dtypes,
    weight_graph,
)
from mezzotint.plan import Budget, Choice, Encoding
from mezzotint.recipes.default_prompts import default_prompts, usual_count
from mezzotint.recipes.job import Job, MeasuringSettings, check_floating
from mezzotint.recipes.journaled_figures import Measuring
from mezzotint.recipes.study import Study
from mezzotint.runtime import Calibration

_LOCK = ".lock"
_OURS = frozenset({BANK_FOLDER, GRAPH_FILE, HEADER_FILE, JOURNAL_FILE})


@dataclass(frozen=True)
class SampleOptions:
    """Labels to be measured.

    Attributes:
        count: number of configurations, with those that are there already.
        formats: that every weight may take.
        metric: `paired`, `noise`, `fd` or `module:function`, see `label_metric`.
        images: how many it compares; None for its own number. For `noise`, prompts whose calls are
            recorded.
        rounding: `nearest` as published, or `feedback`.
        stratify: spread stored bits evenly, see `sampled`.
        seed: of the drawing; image i starts from the noise of seed + i.

    Raises:
        UsageError: a value is out of its domain.
        FormatError: there is no such format, or no such rounding.
    """

    count: int = 300
    formats: tuple[str, ...] = PUBLISHED_FORMATS
    metric: str = "paired"
    images: int | None = None
    rounding: str = "nearest"
    stratify: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("seed", 0), ("images", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"{name}: is {value}; give {least} or more")
        if len({*self.formats}) < len(self.formats) or not self.formats:
            raise UsageError(f"formats: are {', '.join(self.formats)}; give different ones")
        for name in self.formats:
            if parse_weight_format(name) is None:
                raise UsageError(f"formats: {name!r} quantizes nothing; leave it out")
        _ = self.measure, self.encoding

    @property
    def measure(self) -> Metric:
        """The metric.

        Raises:
            UsageError: there is none of that name, or it takes more images.
        """
        return label_metric(self.metric, self.images)

    @property
    def encoding(self) -> Encoding:
        """Rounding of weights, with the search of clipping ranges that was published.

        Raises:
            FormatError: there is no such rounding.
        """
        return Encoding(QUA2SEDIMO, self.rounding)


def sample_labels(
    pipe: DiffusionPipeline,
    folder: str | Path,
    options: SampleOptions | None = None,
    *,
    prompts: Sequence[str] | None = None,
    steps: int | None = None,
    executor: str | ExecutorFactory | None = None,
) -> Labels:
    """Draw configurations of the pipeline's denoiser, and measure each.

    Finished labels are kept in the folder: an interrupted run goes on, and one that asks for more
    adds to them.

    Args:
        pipe: a floating text-to-image pipeline; left as it is.
        folder: for the bank of quantized layers, the graph and the labels.
        options: what to measure.
        prompts: of the images, or of the calls; by default the model's own, or general ones. They
            repeat with other seeds where more are needed.
        steps: denoising steps; the pipeline's own by default.
        executor: name of what measures, such as `ray`, or makes that, given the floating model; by
            default this process does.

    Raises:
        LabelError: the folder holds labels of something else, or cannot be written.
        BankError: it holds a bank of other weights.
        UsageError: an option is out of its domain, or another process is at the same folder.
        CalibrationError: weights or outputs of the floating model hold NaN.
    """
    options = options or SampleOptions()
    options.measure.check_available()
    _check_is_ours(Path(folder))
    _, denoiser = find_denoiser(pipe)
    check_floating(type(denoiser).__name__, denoiser)
    note_source_dtypes(pipe)
    sampling = _sampling(pipe, options, prompts, steps)
    # Calls for rounding come from fewer prompts than what is judged by images.
    few = replace(sampling, prompts=sampling.prompts[: usual_count(pipe)])
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
        study: of the floating model.
        graph: of its weights.
        bank: all candidates of all weights.
        formats: of the candidates.
        metric: makes the labels.
        measuring: its journal holds them.
    """

    study: Study
    graph: WeightGraph
    bank: Bank
    formats: tuple[str, ...]
    metric: Metric
    measuring: Measuring

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the weights that have a choice, in the order of the graph."""
        return tuple(node.key for node in self.graph.weights if node.quantizable)

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
    metric, encoding = options.measure, options.encoding
    study = Study.of(job, bos=False, shortcuts="concatenations", momentum=None)
    if study.graph.tied:
        name, first = next(iter(study.graph.tied.items()))
        raise ModelError(
            f"layers {name} and {first} share one weight, which a bank of layers cannot keep "
            "together; give each a weight of its own"
        )
    original = Original(job.denoiser, study.calls, pipe=job.pipe, sampling=sampling)
    header = _header(study, original, options, metric, encoding)
    try:
        with _held(folder):
            if (folder / HEADER_FILE).is_file():
                LabelHeader.load(folder / HEADER_FILE).check(header, folder)
            graph = weight_graph(job.denoiser, study.graph, study.structures.splits)
            bank = _bank(folder, study, graph, options, encoding)
            graph.save(folder / GRAPH_FILE)
            if not (folder / HEADER_FILE).is_file():
                write_json(folder / HEADER_FILE, header.to_dict())
            with Journal(folder / JOURNAL_FILE, header.to_dict()) as journal:
                original = replace(original, calibration=Calibration(encoded=bank))
                measuring = Measuring(original, job.measuring.executor or InProcess, journal)
                yield Labelling(study, graph, bank, options.formats, metric, measuring)
    except OSError as cause:
        raise LabelError(
            f"{folder}: cannot be written ({cause.strerror or cause}); make room, and repeat the "
            "command to go on"
        ) from cause
    except KeyboardInterrupt as interruption:
        interruption.add_note(f"finished labels are kept in {folder}")
        interruption.add_note("repeat the command to go on")
        raise


def _sampling(
    pipe: DiffusionPipeline,
    options: SampleOptions,
    prompts: Sequence[str] | None,
    steps: int | None,
) -> Sampling:
    """Prompts of the images, or of the calls."""
    count = options.measure.prompts or options.images
    if count is None:
        count = len(prompts) if prompts else usual_count(pipe)
    chosen = tuple(islice(cycle(prompts or default_prompts(pipe)), count))
    return Sampling(prompts=chosen, seed=options.seed, steps=steps)


def _header(
    study: Study,
    original: Original,
    options: SampleOptions,
    metric: Metric,
    encoding: Encoding,
) -> LabelHeader:
    images = metric.sees == "images"
    sampling = original.sampling if images else study.job.sampling
    return LabelHeader(
        model=study.job.model,
        weights=model_digest(study.job.denoiser),
        metric=options.metric,
        images=metric.prompts,
        sampling=None if sampling is None else sampling.to_dict(),
        formats=options.formats,
        encoding=encoding.to_dict(),
        torch=torch.__version__,
        originals=original.images.digest if images else None,
        calls=calls_digest(study.calls),
    )


def _bank(
    folder: Path,
    study: Study,
    graph: WeightGraph,
    options: SampleOptions,
    encoding: Encoding,
) -> Bank:
    """The bank of all layers, built unless it is there."""
    choices = [Choice(name) for name in options.formats]
    names = dict.fromkeys(node.layer for node in graph.weights if node.quantizable)
    structured = study.structured(choices)
    candidates = {name: structured[name] for name in names}
    place = folder / BANK_FOLDER
    # The header says that a bank beside it has seen the same calls: no need to look at them again.
    if encoding.needs_grams and (folder / HEADER_FILE).is_file() and place.is_dir():
        bank = Bank.open(place)
        bank.check(study.job.denoiser)
        return bank
    calibration = study.calibrated(candidates, encoding)
    return Bank.build(place, study.job.denoiser, candidates, encoding, calibration)


def _check_is_ours(folder: Path) -> None:
    """Refuse a folder that holds other things than labels, before anything is written to it.

    Raises:
        LabelError: naming what stands there.
    """
    if not folder.is_dir() or (folder / HEADER_FILE).is_file():
        return
    other = [each.name for each in folder.iterdir() if each.name not in _OURS]
    if visible := [name for name in other if not name.startswith(".")]:
        raise LabelError(f"{folder}: holds {visible[0]}, and no labels; name another folder")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder, which is made where there is none."""
    if folder.exists() and not folder.is_dir():
        raise LabelError(f"{folder}: is a file; name a folder for the labels")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / _LOCK, timeout=0):
            yield
    except Timeout as cause:
        raise UsageError(
            f"{folder}: another process makes labels there; wait for it, or name another folder"
        ) from cause
