"""Calls of a denoiser with one layer changed, without computing again what runs before it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mezzotint.errors import UsageError
from mezzotint.measuring.trace import Invocation, Trace, memory, trace
from mezzotint.models import Call, touches
from mezzotint.models.patching import Forward, patched

CACHE_BYTES = 2 * 2**30
"""Default bound of what is remembered of all calls together."""


class Replay:
    """Runs recorded calls; modules that finish before the changed layer return what they returned.

    The outputs are those of full runs, bit for bit: nothing that depends on the layer is
    remembered, and what is computed is computed from the same tensors. The order of execution is
    observed, so any architecture will do, provided that the modules of the denoiser keep no state
    between them and use no random numbers. Layers are best taken in the order of execution: from
    one to the next, only what has finished in between is run once more.

    Args:
        denoiser: floating whenever `order` or `advance` is called.
        calls: what `run` will be given.
        cache_bytes: bound of the memory; calls that do not fit any more run in full. None for no
            bound; 0 switches all of this off.

    Raises:
        UsageError: `cache_bytes` is negative.
    """

    def __init__(
        self, denoiser: nn.Module, calls: Sequence[Call], *, cache_bytes: int | None = CACHE_BYTES
    ) -> None:
        if cache_bytes is not None and cache_bytes < 0:
            raise UsageError(f"cache_bytes: {cache_bytes} is negative; use 0 to switch it off")
        self.denoiser = denoiser
        self.calls = tuple(calls)
        self._limit = float("inf") if cache_bytes is None else cache_bytes
        self._layer: str | None = None
        self._modules = dict(denoiser.named_modules())
        remembered = self.calls if self._limit else ()
        self._prefixes = {call: _Prefix(denoiser, call) for call in remembered}

    def order(self, layers: Iterable[str]) -> list[str]:
        """The layers in the order in which they first run; those that never do come first."""
        first = next(iter(self._prefixes.values()), None)
        starts = first.trace.starts if first else {}
        return sorted(layers, key=lambda layer: starts.get(layer, -1))

    @torch.no_grad()
    def advance(self, layer: str) -> None:
        """Remember what runs before `layer`, forget all else."""
        self._layer = layer
        expected = 0
        for prefix in self._prefixes.values():
            wanted = prefix.trace.before(layer)
            size = sum(invocation.bytes for invocation in wanted)
            if expected + size > self._limit:
                wanted = ()
            else:
                expected += size
            self._remember(prefix, wanted, layer)

    def run(self, call: Call) -> Tensor:
        """The output tensor of `call`: as recorded, where another component's layer is changed."""
        untouched = self._layer is not None and not touches(self._layer, self.denoiser, call)
        if untouched and call.output is not None:
            return call.output
        with self.replaying(call):
            return call.run(self.denoiser)

    @contextmanager
    def replaying(self, call: Call) -> Iterator[None]:
        """The denoiser prepared for one run on the arguments of `call`."""
        prefix = self._prefixes.get(call)
        with patched({} if prefix is None else self._returning(prefix)):
            yield

    @property
    def bytes_held(self) -> int:
        """Memory behind all remembered outputs; what they share is counted once."""
        return memory([list(prefix.outputs.values()) for prefix in self._prefixes.values()])

    def _remember(self, prefix: _Prefix, wanted: Sequence[Invocation], layer: str) -> None:
        """Run `call` up to `layer` where `wanted` is not all there, starting from what is."""
        begin = prefix.trace.starts.get(layer, 0)
        if any(invocation.end > begin for invocation in prefix.outputs):
            prefix.outputs = {}  # the layer lies behind
        new = [invocation for invocation in wanted if invocation not in prefix.outputs]
        outputs = dict(prefix.outputs)
        if new:
            forwards = self._returning(prefix) | self._recording(new, outputs)
            forwards[self._modules[layer]] = _stop
            with patched(forwards), suppress(_ReachedError):
                prefix.call.run(self.denoiser)
        prefix.outputs = {invocation: outputs[invocation] for invocation in wanted}

    def _returning(self, prefix: _Prefix) -> dict[nn.Module, Forward]:
        """Forward methods that return what is remembered, run after run."""
        outputs: dict[str, list[Any]] = {}
        for invocation in sorted(prefix.outputs, key=lambda run: run.start):
            outputs.setdefault(invocation.module, []).append(prefix.outputs[invocation])
        return {self._modules[name]: _returning(iter(values)) for name, values in outputs.items()}

    def _recording(
        self, wanted: Sequence[Invocation], outputs: dict[Invocation, Any]
    ) -> dict[nn.Module, Forward]:
        """Forward methods that fill `outputs` with the outermost runs of these modules."""
        runs: dict[str, list[Invocation]] = {}
        for invocation in wanted:
            runs.setdefault(invocation.module, []).append(invocation)
        inside: list[str] = []

        def recording(name: str, forward: Forward) -> Forward:
            remaining = iter(runs[name])

            @functools.wraps(forward)
            def run(*args: Any, **kwargs: Any) -> Any:
                if inside:
                    return forward(*args, **kwargs)
                inside.append(name)
                output = forward(*args, **kwargs)
                inside.pop()
                outputs[next(remaining)] = _own(output)
                return output

            return run

        return {self._modules[n]: recording(n, self._modules[n].forward) for n in runs}


@dataclass
class _Prefix:
    """Remembered outputs of one call."""

    denoiser: nn.Module
    call: Call
    outputs: dict[Invocation, Any] = field(default_factory=dict)

    @functools.cached_property
    def trace(self) -> Trace:
        """Observed when it is first asked for, while the denoiser is floating."""
        return trace(self.denoiser, self.call)


class _ReachedError(Exception):
    """Ends a run at the layer up to which it is wanted."""


def _stop(*args: Any, **kwargs: Any) -> Any:
    raise _ReachedError


def _returning(outputs: Iterator[Any]) -> Forward:
    def run(*args: Any, **kwargs: Any) -> Any:
        return _own(next(outputs))

    return run


def _own(output: Any) -> Any:
    """The same tensors in lists and dictionaries of one's own, which others may change."""
    return tree_map(lambda leaf: leaf, output)
