"""The training loop: trajectories of the pipeline, and updates after their steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from mezzotint._journal import differing
from mezzotint._progress import Meter, meter
from mezzotint.errors import TrainingError, UsageError
from mezzotint.models import Call, evaluating, find_denoiser
from mezzotint.models.calls import device_of
from mezzotint.training.both_models import BothModels
from mezzotint.training.curve import Curve, Point
from mezzotint.training.fingerprint import LENGTH, fingerprint
from mezzotint.training.optimizer import Optimizer
from mezzotint.training.options import Training
from mezzotint.training.states import Position, State, StateFolder, Sums
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


def train(
    student: Student,
    pipe: DiffusionPipeline,
    prompts: Sequence[str],
    options: Training,
    folder: str | Path | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Curve:
    """Distill the floating denoiser into the student, along the pipeline's own trajectories.

    A training that was interrupted goes on from the folder's state; one that is done is not
    repeated. With `options.steps` the result does not depend on interruptions. Where the length is
    0, the student takes the folder's state, whatever the length of that training, and nothing is
    trained or written.

    Args:
        student: of the pipeline's denoiser; trained in place.
        pipe: floating; runs its own scheduler and guidance.
        prompts: that trajectories are of.
        options: as the student was made with.
        folder: for the state of training, every minute and at the end; None to keep none.
        clock: tells seconds.

    Raises:
        UsageError: there are no prompts, the pipeline has another denoiser, or one in float16 on a
            CPU, or one that calls it once for each half of guidance; or the folder holds something
            else.
        JournalError: the folder is of another training, which is named; is damaged; or cannot be
            written.
        TrainingError: NaN, or a loss that grows; the step and the layer are named, the student and
            the folder keep the last good state, which a length of 0 takes up.
        ModelError: the pipeline fails, or does not make images from text.
    """
    if not prompts:
        raise UsageError("prompts: none given; training needs one at least")
    if find_denoiser(pipe)[1] is not student.denoiser:
        raise UsageError("pipe: has another denoiser than the student; give the student's own")
    first = next(student.denoiser.parameters())
    if first.dtype == torch.float16 and first.device.type == "cpu":
        raise UsageError("pipe: is in float16, in which no CPU trains; load it in float32")
    identity = fingerprint(student, pipe, prompts, options)
    ignored = frozenset() if options.trains else LENGTH
    states = StateFolder(None if folder is None else Path(folder), identity, ignored)
    known = states.load()
    share = options.own_share if options.trajectory == "mixed" else 0.0
    trajectories = Trajectories(
        pipe, student.denoiser, tuple(prompts), options.batch, options.seed, share
    )
    loop = Loop(student, trajectories, options, states, clock)
    if known is not None:
        loop.restore(known)
    if options.trains:
        with evaluating(student.denoiser), meter("Training") as bar:
            loop.run(bar)
    return Curve(
        loop.position.updates, loop.position.minutes, options.to_dict(), loop.position.points
    )


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
        self._optimizer = Optimizer(student, options.rates)
        self._models = BothModels(student, trajectories.pipe, options)
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
        misfit = self._misfit(state)
        if misfit is not None:
            raise self.states.damaged(misfit)
        self._load(state)
        self._good = replace(self._state(), outputs=state.outputs)

    def _misfit(self, state: State) -> str | None:
        """The first thing in a state that no training of this student has written."""
        known = {name: each.shape for name, each in self.student.parameters().items()}
        found = {name: each.shape for name, each in state.parameters.items()}
        name = differing(known, found)
        if name is not None:
            return f"parameters/{name} is {_shown(found, name)}, not {_shown(known, name)}"
        done = self.options.progress(state.position.updates, state.position.minutes) >= 1.0
        steps = len(state.position.losses)
        if not done and len(state.outputs) != steps:  # a finished trajectory is not gone on with
            return f"{len(state.outputs)} outputs of {steps} denoising steps"
        return self._optimizer.misfit(state.optimizer)

    def _load(self, state: State) -> None:
        self.position, self._known = state.position, state.outputs
        self._minutes_before = state.position.minutes
        with torch.no_grad():
            for name, parameter in self.student.parameters().items():
                parameter.copy_(state.parameters[name])
        self._optimizer.load(state.optimizer)

    def _state(self) -> State:
        """The present state; parameters and optimizer as copies."""
        parameters = {n: p.detach().clone() for n, p in self.student.parameters().items()}
        optimizer = {n: t.clone() for n, t in self._optimizer.state().items()}
        return State(self.position, parameters, optimizer, tuple(self._outputs))

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
            self._add_point()
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
        losses, ratio = (main, features), None
        if number % POINT_EVERY == 0:
            ratio = self._models.compare(losses, [*self._optimizer.parameters.values()])
        else:
            self._models.differentiate(losses)
        self._holding.close()
        if not gradients_are_finite(self._optimizer.parameters):
            where = infinite_gradient(self._optimizer.parameters)
            self._give_up(f"the gradient is infinite or NaN, {where}")
        self._optimizer.step(self.options.progress(position.updates, self._minutes))
        lost = sum(window.relative) / len(window.errors)
        of_features = None
        if features is not None:
            of_features = lost * float(features.detach() / main.detach().clamp(min=_TINY))
        sums = position.sums.plus(lost, of_features, ratio)
        self.position = replace(position, updates=number, minutes=self._minutes, sums=sums)
        if number % POINT_EVERY == 0:
            self._add_point()
        self._bar.show(self.options.progress(number, self._minutes), self._figures(sums))
        window.learned()
        if window.full:
            self._new_window()
        if self._window.steps == 0 and self.clock() - self._saved >= SAVE_EVERY:
            self._save()

    def _add_point(self) -> None:
        position, sums = self.position, self.position.sums
        count = sums.updates
        point = Point(
            position.updates,
            position.minutes,
            sums.loss / count,
            None if sums.feature_loss is None else sums.feature_loss / count,
            sums.ratio,
        )
        self.position = replace(position, sums=Sums(), points=(*position.points, point))

    def _figures(self, sums: Sums) -> str:
        """The line of the progress bar."""
        position = self.position
        rate = position.updates / max(position.minutes * 60, 1e-9)
        part = "" if not sums.feature_loss else f", features {sums.feature_loss / sums.updates:.4f}"
        return f"loss {sums.loss / sums.updates:.4f}{part}, {rate:.2f} updates/s"

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


def _shown(shapes: Mapping[str, torch.Size], name: str) -> str:
    return f"of shape {tuple(shapes[name])}" if name in shapes else "absent"


class _DoneError(BaseException):  # no error of the pipeline's, which would be reported
    """Ends a pipeline's run in the middle of a trajectory."""
