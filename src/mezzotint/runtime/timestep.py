"""The timestep that a denoiser is called with, for layers that depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn

from mezzotint._time_argument import TimeArgument
from mezzotint.errors import UsageError


def nearest_step(timesteps: Tensor, t: Tensor) -> Tensor:
    """Indices of the calibrated timesteps nearest to each of `t`: int64 [B].

    Of two that are equally near it is the lower one.

    Args:
        timesteps: [T], rising.
        t: [B].
    """
    # argmin returns the first of several smallest values, which is the lower timestep.
    return (t.to(timesteps.device).unsqueeze(1) - timesteps).abs().argmin(1)


class TimestepReader:
    """Holds the timestep of the denoiser's call in progress.

    It is read from the denoiser's own argument, before each call, and given up when the call ends:
    no steps are counted, and nothing is left over from one call to the next. Two threads cannot
    call the same denoiser at once; that is an error.

    The reader belongs to its denoiser's hooks, and is copied and pickled with it.
    """

    def __init__(self, argument: TimeArgument | None = None) -> None:
        """Hold nothing yet.

        Args:
            argument: of the denoiser; None for a reader that is only told what to hold.
        """
        self._argument = argument
        self._hooks: tuple[Any, ...] = ()
        self._held: Tensor | None = None
        self._thread: int | None = None

    @classmethod
    def attach(cls, denoiser: nn.Module) -> Self:
        """The reader of a denoiser, which has one from now on.

        Raises:
            UsageError: its `forward` takes no timestep.
        """
        found = cls.of(denoiser)
        if found is not None:
            return found
        reader = cls(check_timed(denoiser))
        before = denoiser.register_forward_pre_hook(reader._begin, with_kwargs=True)
        after = denoiser.register_forward_hook(reader._end, always_call=True)
        reader._hooks = (before, after)
        return reader

    @classmethod
    @contextmanager
    def reading(cls, denoiser: nn.Module) -> Iterator[Self]:
        """The reader of a denoiser, attached for a while where it has none.

        Raises:
            UsageError: its `forward` takes no timestep.
        """
        found = cls.of(denoiser)
        reader = found or cls.attach(denoiser)
        try:
            yield reader
        finally:
            if found is None:
                reader.detach()

    @classmethod
    def of(cls, denoiser: nn.Module) -> Self | None:
        """The reader that is attached to a denoiser; None where there is none."""
        for hook in denoiser._forward_pre_hooks.values():
            found = getattr(hook, "__self__", None)
            if isinstance(found, cls):
                return found
        return None

    @staticmethod
    def given(
        denoiser: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor | None:
        """The timestep of a call with these arguments, float32 [1] or [B]; None if it has none.

        Raises:
            UsageError: the denoiser's `forward` takes no timestep.
        """
        value = check_timed(denoiser).value(args, kwargs)
        return None if value is None else _per_sample(value)

    def detach(self) -> None:
        """Leave the denoiser as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = ()

    @property
    def timestep(self) -> Tensor:
        """Timestep of the call in progress: float32 [1], or one for each sample of the batch.

        Raises:
            UsageError: no call is in progress, or it was given no timestep; or another thread has
                begun one.
        """
        held = self._held
        if held is None:
            raise UsageError(
                "a layer whose input has a scale for each timestep was run without one; call the "
                "whole denoiser with a timestep, or run the layer within "
                "TimestepReader.of(denoiser).holding(timestep), as gradient checkpointing has to"
            )
        # Compilers know no threads; what they compile reads the timestep as the call begins.
        if not torch.compiler.is_compiling() and self._thread not in (None, get_ident()):
            raise UsageError(
                "two threads called one denoiser whose layers depend on the timestep; give each "
                "thread a copy"
            )
        return held

    @contextmanager
    def holding(self, timestep: Tensor | float) -> Iterator[None]:
        """Let layers that are run outside of the denoiser take `timestep` for a while.

        Args:
            timestep: one, or one for each sample.
        """
        before = self._held, self._thread
        self._hold(_per_sample(timestep))
        try:
            yield
        finally:
            self._held, self._thread = before

    def _begin(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A forward pre-hook."""
        assert self._argument is not None
        value = self._argument.value(args, kwargs)
        self._hold(None if value is None else _per_sample(value))

    def _end(self, denoiser: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A forward hook."""
        self._held = None

    def _hold(self, timestep: Tensor | None) -> None:
        self._held = timestep
        self._thread = None if torch.compiler.is_compiling() else get_ident()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None, "_thread": None}


def check_timed(denoiser: nn.Module) -> TimeArgument:
    """The timestep among a denoiser's arguments.

    Raises:
        UsageError: its `forward` takes none.
    """
    found = TimeArgument.of(denoiser.forward)
    if found is None:
        raise UsageError(
            f"{type(denoiser).__name__} is called without a timestep, so its layers can have no "
            "scales of inputs for each step; take a format such as 'uint8/tensor' or 'int8/token'"
        )
    return found


def _per_sample(value: Any) -> Tensor:
    """Timesteps as float32 [1] or [B]."""
    if not isinstance(value, Tensor):
        if isinstance(value, int | float):
            return torch.full((1,), value, dtype=torch.float32, device="cpu")
        value = torch.as_tensor(value)
    found: Tensor = value.detach().to(torch.float32)
    if found.ndim > 1 and found.numel() != found.shape[0]:
        raise UsageError(
            f"the denoiser was given timesteps of shape {tuple(found.shape)}; layers whose inputs "
            "have a scale for each timestep take one timestep for each sample"
        )
    return found.reshape(-1)
