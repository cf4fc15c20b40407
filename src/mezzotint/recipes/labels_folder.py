"""The folder of labels: their header, the bank that they are of, and one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mezzotint._locks import only_here
from mezzotint.bank import Bank
from mezzotint.errors import LabelError
from mezzotint.labels import LabelHeader
from mezzotint.labels.header import BANK_FOLDER, GRAPH_FILE, HEADER_FILE, JOURNAL_FILE
from mezzotint.measuring import Original, calls_digest, model_digest
from mezzotint.models import WeightGraph
from mezzotint.plan import Choice
from mezzotint.recipes.label_options import SampleOptions
from mezzotint.recipes.study import Study

_OURS = frozenset({BANK_FOLDER, GRAPH_FILE, HEADER_FILE, JOURNAL_FILE})


def check_is_ours(folder: Path) -> None:
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
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from the folder, which is made where there is none.

    Raises:
        LabelError: it is a file, or cannot be written.
        UsageError: another process is at it.
    """
    if folder.exists() and not folder.is_dir():
        raise LabelError(f"{folder}: is a file; name a folder for the labels")
    try:
        with only_here(folder):
            folder.mkdir(exist_ok=True)
            yield
    except OSError as cause:
        raise LabelError(
            f"{folder}: cannot be written ({cause.strerror or cause}); make room, and repeat the "
            "command to go on"
        ) from cause
    except KeyboardInterrupt as interruption:
        interruption.add_note(f"finished labels are kept in {folder}")
        interruption.add_note("repeat the command to go on")
        raise


def header_of(study: Study, original: Original, options: SampleOptions) -> LabelHeader:
    """The header of labels that are to be measured: all that they depend on.

    Args:
        study: of the floating model.
        original: with the prompts of images, where the metric sees some.
        options: metric, formats and rounding.
    """
    metric, encoding = options.measure, options.encoding
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
        bos=options.bos,
        torch=torch.__version__,
        originals=original.images.digest if images else None,
        calls=calls_digest(study.calls),
    )


def bank_of(folder: Path, study: Study, graph: WeightGraph, options: SampleOptions) -> Bank:
    """The bank of all layers, built unless it is there.

    Args:
        folder: of the labels.
        study: of the floating model.
        graph: of its weights.
        options: formats and rounding.

    Raises:
        BankError: there is a bank of other weights, or it cannot be written.
    """
    encoding = options.encoding
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
