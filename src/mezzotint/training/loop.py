"""The training loop: trajectories of the pipeline, and updates after their steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from mezzotint._progress import Meter
from mezzotint.errors import TrainingError
from mezzotint.models import Call
from mezzotint.models.calls import device_of
from mezzotint.training.both_models import BothModels
from mezzotint.training.learned import Learned
from mezzotint.training.options import Training
from mezzotint.training.position import Position
from mezzotint.training.precision import precision_of
from mezzotint.training.states import State, StateFolder
from mezzotint.training.student import Student
from mezzotint.training.trajectories import Trajectories
from mezzotint.training.trouble import (
    GROWN,
    GROWN_FROM_START,
    first_infinite,
    gradients_are_finite,
    infinite_gradient,
    most_changed,
)
from mezzotint.training.window import Window

SAVE_EVERY = 60.0
"""Seconds between states on disk."""

POINT_EVERY = 10
"""Updates from one point of the curve to the next; gradients are compared at one of them."""

_TINY = torch.finfo(torch.float32).tiny


class Loop:
    """A training at work.

    Attributes:
        position: the place that it has come to.
    """

    def __init__(
        self,
        student: Student,
        trajectories: Trajectories,
        options: Training,
        states: StateFolder,
        clock: Callable[[], float],
    ) -> None:
        """Begin; `restore` and `run` follow."""
        self.student, self.trajectories, self.options = student, trajectories, options
        self.states, self.clock = states, clock
        self.position = Position()
        first = next(student.denoiser.parameters())
        precision = precision_of(first.device, first.dtype, options.autocast)
        self._learned = Learned(student, options.rates, precision)
        self._models = BothModels(student, trajectories.pipe, options, precision)
        self._outputs: list[Tensor] = []
        self._known: tuple[Tensor, ...] = ()
        self._window = Window(options)
        self._holding = ExitStack()
        self._begun = self._saved = clock()
        self._minutes_before = 0.0
        self._good = self._state()

    def restore(self, state: State) -> None:
        """Go on from a state.

        Raises:
            JournalError: it does not fit the student.
        """
        misfit = self._misfit_outputs(state) or self._learned.misfit(state)
        if misfit is not None:
            raise self.states.damaged(misfit)
        self._load(state)
        self._good = replace(self._state(), outputs=state.outputs)

    def _misfit_outputs(self, state: State) -> str | None:
        """The reason why outputs in a state are not those of its trajectory; None for none."""
        done = self.options.progress(state.position.updates, state.position.minutes) >= 1.0
        steps = len(state.position.losses)
        if not done and len(state.outputs) != steps:  # a finished trajectory is not gone on with
            return f"{len(state.outputs)} outputs of {steps} denoising steps"
        return None

    def _load(self, state: State) -> None:
        self.position, self._known = state.position, state.outputs
        self._minutes_before = state.position.minutes
        self._learned.load(state)

    def _state(self) -> State:
        return self._learned.state(self.position, self._outputs)

    def run(self, bar: Meter) -> None:
        """Train to the end, and save.

        Raises:
            TrainingError: see `train`.
        """
        self._bar = bar
        try:
            while not self._done:
                self.trajectories.run(self.position.trajectory, self._answer)
                self._window.ended = True
                if self._window.errors:
                    self._update()
                self._end_trajectory()
        except _DoneError:
            pass
        finally:
            self._new_window()
        if self.position.sums.updates:
            self.position = self.position.with_point()
        self._save()

    @property
    def _done(self) -> bool:
        return self.options.progress(self.position.updates, self._minutes) >= 1.0

    @property
    def _minutes(self) -> float:
        return self._minutes_before + (self.clock() - self._begun) / 60

    def _answer(self, call: Call) -> Tensor:
        """The output of one call of the pipeline; there may be an update before it is returned."""
        place = len(self._outputs)
        if place < len(self._known):
            self._outputs.append(self._known[place].to(device_of(self.student.denoiser)))
            return self._outputs[-1]
        if self._window.errors and self.options.trd_graph == "stop":
            self._update()  # after the step before, of which only now is known that it is no last
        if self._done:
            raise _DoneError
        self._outputs.append(self._computed(call))
        if self._window.full:
            self._update()
        return self._outputs[-1]

    @torch.enable_grad()
    def _computed(self, call: Call) -> Tensor:
        """The output that the pipeline is given; what both models computed is in the window."""
        if not self._window.errors:
            self._holding.enter_context(self.student.holding_weights())
        teacher, found = self._models.run(call, self._window)
        lost = self._window.relative[-1]
        position = self.position
        start = lost if position.start is None else position.start
        self.position = replace(position, losses=(*position.losses, lost), start=start)
        if not math.isfinite(lost):
            self._give_up(f"the loss is {lost}, first {first_infinite(self.student, call)}")
        led = found if self.trajectories.own(self.position.trajectory) else teacher
        return led.detach().to(next(self.student.denoiser.parameters()).dtype)

    @torch.enable_grad()
    def _update(self) -> None:
        """Learn from the window, or from its latest step; keep the state, where it is time."""
        window, position = self._window, self.position
        main, features = window.main(), window.features() if window.full else None
        number = position.updates + 1
        optimizer, ratio = self._learned.optimizer, None
        losses = optimizer.scaled(main), None if features is None else optimizer.scaled(features)
        if number % POINT_EVERY == 0:
            ratio = self._models.compare(losses, [*optimizer.parameters.values()])
        else:
            self._models.differentiate(losses)
        self._holding.close()
        optimizer.unscale()
        if not optimizer.may_overflow and not gradients_are_finite(optimizer.parameters):
            where = infinite_gradient(optimizer.parameters)
            self._give_up(f"the gradient is infinite or NaN, {where}")
        optimizer.step(self.options.progress(position.updates, self._minutes))
        lost = sum(window.relative) / len(window.errors)
        of_features = None
        if features is not None:
            of_features = lost * float(features.detach() / main.detach().clamp(min=_TINY))
        sums = position.sums.plus(lost, of_features, ratio)
        self.position = replace(position, updates=number, minutes=self._minutes, sums=sums)
        figures = self.position.figures
        if number % POINT_EVERY == 0:
            self.position = self.position.with_point()
        self._bar.show(self.options.progress(number, self._minutes), figures)
        window.learned()
        if window.full:
            self._new_window()
        if self._window.steps == 0 and self.clock() - self._saved >= SAVE_EVERY:
            self._save()

    def _end_trajectory(self) -> None:
        """Compare its loss with that of the beginning, and start another.

        Raises:
            TrainingError: it has grown.
        """
        position = self.position
        mean = sum(position.losses) / max(len(position.losses), 1)
        first = mean if position.first is None else position.first
        most = min(GROWN * first, GROWN_FROM_START * (position.start or math.inf))
        if mean > most:
            layer = most_changed(self.student, self._good.parameters)
            self._give_up(
                f"the loss has grown to {mean:.3g}, above {most:.3g}, while layer {layer} changed "
                "most"
            )
        self.position = replace(
            position, trajectory=position.trajectory + 1, losses=(), first=first
        )
        self._outputs, self._known = [], ()
        self._new_window()
        self._good = self._state()

    def _new_window(self) -> None:
        self._holding.close()
        self._window = Window(self.options)

    def _save(self) -> None:
        self.states.save(self._state())
        self._saved = self.clock()

    def _give_up(self, why: str) -> None:
        """Go back to the last good state, keep it, and say what went wrong.

        Raises:
            TrainingError: always.
        """
        losses = self.position.losses
        step = max(
            range(len(losses)), key=lambda i: math.inf if math.isnan(losses[i]) else losses[i]
        )
        where = f"update {self.position.updates + 1}, denoising step {step + 1}"
        self._new_window()
        self._load(self._good)
        self.states.save(self._good)
        kept = "" if self.states.folder is None else ", or pack that state with a length of 0"
        raise TrainingError(
            f"{where}: {why}; went back to the state of update {self.position.updates}: train for "
            f"less time, or with lower rates{kept}"
        )


class _DoneError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline's run in the middle of a trajectory."""
