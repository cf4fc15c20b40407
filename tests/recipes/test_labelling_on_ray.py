"""Workers on Ray make the labels of one process, from the same bank."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mezzotint as mz
from mezzotint._journal import Record
from mezzotint.measuring import executor_named
from mezzotint.measuring.ray_cluster.connection import import_ray
from mezzotint.recipes.labelling import sample_labels
from tests.recipes.labelled_pipeline import FEW, save_smallest


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in the order of the workers, which have a thread each; Ray is gone at the end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    import_ray().shutdown()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray has set another one


def test_labels_are_those_of_one_process_bit_for_bit(tmp_path: Path):
    source = save_smallest(tmp_path / "tiny")
    # With feedback no worker could encode anything: moments stay where the bank was built.
    options = replace(FEW, rounding="feedback")
    sample_labels(mz.load(source), tmp_path / "here", options)
    executor = executor_named("ray", workers=1)
    labels = sample_labels(mz.load(source), tmp_path / "there", options, executor=executor)
    assert len(labels) == options.count
    here, there = (Record.read(tmp_path / name / "labels.jsonl") for name in ("here", "there"))
    assert here == there
