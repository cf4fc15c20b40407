"""Order in which modules run in one call of a denoiser; those that their output may replace."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mezzotint.models import Call
from mezzotint.models.patching import Forward, patched

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
"""Immutable values that a module may return beside tensors."""


@dataclass(frozen=True)
class Invocation:
    """One run of one module: it begins and ends at these ticks of a clock that counts events.

    `bytes` is the memory behind its output's tensors.
    """

    module: str
    start: int
    end: int
    bytes: int


@dataclass(frozen=True)
class Trace:
    """Every run of every module below the denoiser itself, by start.

    Attributes:
        invocations: by start. A module that runs inside another one starts after and ends before.
        opaque: modules that do more than return a value. They change a tensor they were given, or
            return one that is changed later on, or something that is not known to be immutable.
    """

    invocations: tuple[Invocation, ...]
    opaque: frozenset[str]

    @functools.cached_property
    def starts(self) -> dict[str, int]:
        """The first start of each module that runs, in order."""
        starts: dict[str, int] = {}
        for invocation in self.invocations:
            starts.setdefault(invocation.module, invocation.start)
        return starts

    def before(self, layer: str) -> tuple[Invocation, ...]:
        """The outermost runs of modules that have run for the last time when `layer` starts.

        Together they are all that ran until then, save for what unfinished modules do themselves.
        Empty for a layer that is never called: when its weight is read is not known.
        """
        if layer not in self.starts:
            return ()
        begin = self.starts[layer]
        computed = self.opaque | {run.module for run in self.invocations if run.end > begin}
        outermost, covered = [], -1
        for run in self.invocations:
            if run.start > covered and run.module not in computed:
                outermost.append(run)
                covered = run.end
        return tuple(outermost)


@torch.no_grad()
def trace(denoiser: nn.Module, call: Call) -> Trace:
    """Run `call` once and watch."""
    clock = itertools.count()
    invocations: list[Invocation] = []
    returned: list[tuple[str, _Watch]] = []
    opaque: set[str] = set()

    def watched(name: str, forward: Forward) -> Forward:
        @functools.wraps(forward)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = _Watch((args, kwargs))
            start = next(clock)
            output = forward(*args, **kwargs)
            invocations.append(Invocation(name, start, next(clock), memory(output)))
            returned.append((name, _Watch(output)))
            if given.changed or not _plain(output):
                opaque.add(name)
            return output

        return run

    modules = {module: name for name, module in denoiser.named_modules() if name}
    with patched({module: watched(name, module.forward) for module, name in modules.items()}):
        call.run(denoiser)
    opaque.update(name for name, watch in returned if watch.changed)
    return Trace(tuple(sorted(invocations, key=lambda run: run.start)), frozenset(opaque))


def memory(*values: Any) -> int:
    """Bytes behind all tensors in nested values; what they share is counted once."""
    tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def _plain(output: Any) -> bool:
    return all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in tree_leaves(output))


class _Watch:
    """Tells whether any tensor in nested values, or a view of it, was written to since."""

    def __init__(self, values: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        # Inference tensors do not count their versions.
        self._blind = any(tensor.is_inference() for tensor in tensors)
        self._counters = [] if self._blind else [_counter(tensor) for tensor in tensors]
        self._versions = [counter._version for counter in self._counters]

    @property
    def changed(self) -> bool:
        """Also when that cannot be told."""
        now = [counter._version for counter in self._counters]
        return self._blind or now != self._versions


def _counter(tensor: Tensor) -> Tensor:
    """A tensor that shares the version counter, but does not keep the memory alive."""
    counter = tensor.detach()
    counter.data = tensor.new_empty(0)
    return counter
