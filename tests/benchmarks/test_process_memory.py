"""Bytes of a module, and memory of a process."""

import torch
from torch import nn

from benchmarks.contestants.process_memory import (
    peak_bytes,
    reset_peak,
    resident_bytes,
    tensor_bytes,
)


def test_shared_tensors_count_once():
    layer = nn.Linear(10, 10, bias=False)
    assert tensor_bytes(nn.Sequential(layer, layer)) == 400


def test_the_peak_starts_anew_where_the_system_allows_it():
    reset_peak()
    before = peak_bytes()
    block = torch.ones(2**25)
    held = peak_bytes()
    del block
    assert held - before > 100 * 2**20
    assert resident_bytes() <= held
