"""Timing what runs: every distinct layer of a call under every choice, journaled."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from mezzotint._journal import Journal
from mezzotint._progress import track
from mezzotint.errors import JournalError, PlanError
from mezzotint.formats import FLOAT, MINMAX
from mezzotint.plan import Choice, Encoding, Plan
from mezzotint.profiling.medians import interleaved_medians
from mezzotint.profiling.profile import Figure, LayerProfile, Profile
from mezzotint.profiling.runs import Sample, Subject
from mezzotint.profiling.timer import Timer
from mezzotint.profiling.within import measure_within, representatives, with_delays
from mezzotint.runtime import Calibration, InputRange, empty_layer, executions, pack_layer
from mezzotint.runtime.cpu.machine import Machine

CANDIDATES: tuple[Choice, ...] = tuple(
    Choice(f"int{bits}/channel", activation)
    for activation in (FLOAT, "int8/token", "uint8/tensor")
    for bits in (2, 3, 4, 5, 6, 8)
)
"""Choices measured beside the floating one by default."""

FLOAT_KERNEL = "torch"

_WHOLE = "denoiser"
_LAYERS = "layers"

_WHOLE_CALLS_TAKE = 50
"""Times as long as a layer the whole call is timed: all figures hang on it."""


@torch.no_grad()
def measure_profile(
    subject: Subject, choices: Sequence[Choice], journal: Journal, timer: Timer
) -> Profile:
    """Time the whole call and every distinct piece of work in it under each of `choices`.

    Packed layers really run, on the recorded input, through the kernel that the registry picks on
    this device. All choices of a piece take turns with the floating layer. Pieces of the same
    words are timed once. What the journal holds is not timed again.

    What counts are ratios of times taken in turns, since a machine may be slower a minute later:
    of a choice to its floating layer, and of all floating layers to the whole call. The pieces'
    own times only say how the layers share in the latter. What packed layers lose within the call
    is measured on whole denoisers, and added.

    A choice that a layer cannot take, such as a group that does not divide its inputs, is left
    out of that layer's figures. Structures of choices do not count: `Work` has those of layers. Of
    formats such as `uint4/step`, that of a single scale is timed.
    """
    choices = _plain(choices)
    if _WHOLE not in journal:
        journal.add(_WHOLE, _measure_whole(subject, timer))
    pieces = _pieces(subject, choices)
    _measure_pieces(subject, pieces, journal, timer)
    _measure_packed(subject, choices, pieces, journal, timer)
    return _profile(subject, choices, pieces, journal)


@torch.no_grad()
def measure_quickly(
    subject: Subject, choices: Sequence[Choice], journal: Journal, timer: Timer
) -> Profile:
    """An estimate of what `measure_profile` finds: one whole call is timed, once, and floating.

    What packed layers lose within the call is left out.
    """
    choices = _plain(choices)
    pieces = _pieces(subject, choices)
    _measure_pieces(subject, pieces, journal, timer)
    if _WHOLE not in journal:
        # It was run while the work was watched: there is nothing to warm up.
        call = {_WHOLE: partial(subject.call.run, subject.denoiser)}
        found = interleaved_medians(call, repeats=1, warmup=0, clock=timer.clock)
        whole = 1e3 * found[_WHOLE].median
        share = _alone(subject, pieces, journal) / whole if whole else 0.0
        journal.add(_WHOLE, {"milliseconds": whole, "layers": min(share, 1.0)})
    return _profile(subject, choices, pieces, journal)


def is_measured(subject: Subject, choices: Sequence[Choice], journal: Journal) -> bool:
    """True where `measure_profile` would find everything in the journal."""
    choices = _plain(choices)
    wanted = {_WHOLE, *(_packed_key(subject, one) for one in representatives(choices))}
    wanted |= {key for keys in _pieces(subject, choices).values() for key in keys.values()}
    return all(key in journal for key in wanted)


def _plain(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices without structures, and those of parts, once each."""
    return tuple(dict.fromkeys(each.plain for choice in choices for each in choice.of_quantizers))


def _pieces(subject: Subject, choices: Sequence[Choice]) -> dict[str, dict[Choice, str]]:
    """Words of a piece of work → choice → journal key."""
    return {
        words: dict(_figures_wanted(subject, words, sample, choices))
        for words, sample in subject.runs.samples.items()
    }


def _measure_pieces(
    subject: Subject, pieces: Mapping[str, Mapping[Choice, str]], journal: Journal, timer: Timer
) -> None:
    missing = {
        words: {choice: key for choice, key in wanted.items() if key not in journal}
        for words, wanted in pieces.items()
    }
    unfinished = {words: wanted for words, wanted in missing.items() if wanted}
    for words, wanted in track(unfinished.items(), "Profiling", len(unfinished)):
        _measure_piece(subject, subject.runs.samples[words], wanted, _Piece(words, journal, timer))


def _alone(subject: Subject, pieces: Mapping[str, Mapping[Choice, str]], journal: Journal) -> float:
    """Milliseconds of all runs of floating layers in a call, each timed alone."""
    return sum(
        _number(journal, pieces[words][Choice()], "milliseconds")
        for runs in subject.runs.layers.values()
        for words in runs
    )


def _measure_whole(subject: Subject, timer: Timer) -> dict[str, float]:
    """Milliseconds of a call, and the share of its layers in it: run alone, one after another."""
    pieces = [
        partial(subject.denoiser.get_submodule(name), subject.runs.samples[words].x)
        for name, runs in subject.runs.layers.items()
        for words in runs
    ]

    def layers() -> None:
        for piece in pieces:
            piece()

    whole = partial(subject.call.run, subject.denoiser)
    found = _longer(timer)({_WHOLE: whole, _LAYERS: layers}, subject.device)
    return {"milliseconds": 1e3 * found[_WHOLE].median, "layers": found[_LAYERS].ratio}


def _longer(timer: Timer) -> Timer:
    return replace(timer, seconds=_WHOLE_CALLS_TAKE * timer.seconds)


def _measure_packed(
    subject: Subject,
    choices: Sequence[Choice],
    pieces: Mapping[str, Mapping[Choice, str]],
    journal: Journal,
    timer: Timer,
) -> None:
    """Whole denoisers of packed layers, against the floating one."""
    wanted = {one: _packed_key(subject, one) for one in representatives(choices)}
    missing = {choice: key for choice, key in wanted.items() if key not in journal}
    for choice, key in track(missing.items(), "Timing packed denoisers", len(missing)):
        names = [
            name for name, runs in subject.runs.layers.items()
            if runs and all(choice in pieces[words] for words in runs)
        ]  # fmt: skip
        if names:
            ratio = measure_within(subject, choice, names, _longer(timer))
            journal.add(key, {"ratio": ratio})


def _packed_key(subject: Subject, choice: Choice) -> str:
    structures = {
        name: [structure.to_dict() for structure in each]
        for name, each in subject.work.structures.items()
    }
    digest = hashlib.sha256(json.dumps(structures, sort_keys=True).encode()).hexdigest()[:8]
    return f"{_WHOLE} | {choice}" + (f" | structures {digest}" if structures else "")


def _figures_wanted(
    subject: Subject, words: str, sample: Sample, choices: Sequence[Choice]
) -> Iterator[tuple[Choice, str]]:
    """Choice → journal key, which names the kernel: another one is another time."""
    layer = subject.denoiser.get_submodule(sample.layer)
    yield Choice(), _key(words, Choice(), FLOAT_KERNEL)
    for choice in choices:
        if not choice.quantized:
            continue
        try:
            empty = empty_layer(sample.layer, layer, choice)
        except PlanError:
            continue
        (execution,) = executions(nn.Sequential(empty))
        yield choice, _key(words, choice, execution.kernel)


def _key(words: str, choice: Choice, kernel: str) -> str:
    return f"{words} | {choice} | {kernel}"


@dataclass(frozen=True)
class _Piece:
    """Source and destination of the times of one piece of work."""

    words: str
    journal: Journal
    timer: Timer

    @property
    def floating(self) -> str:
        return _key(self.words, Choice(), FLOAT_KERNEL)


def _measure_piece(
    subject: Subject, sample: Sample, wanted: Mapping[Choice, str], piece: _Piece
) -> None:
    layer = subject.denoiser.get_submodule(sample.layer)
    low, high = sample.x.aminmax()
    # Times do not depend on where weights are clipped, so the quickest search will do.
    encoding = Encoding(MINMAX)
    calibration = Calibration({sample.layer: (InputRange(float(low), float(high)),)})
    functions: dict[str, Callable[[], object]] = {piece.floating: partial(layer, sample.x)}
    for choice, key in wanted.items():
        if choice.quantized:
            plan = Plan({sample.layer: choice}, encoding=encoding)
            packed = pack_layer(sample.layer, layer, plan, calibration)
            functions[key] = partial(packed, sample.x)
    found = piece.timer(functions, subject.device)
    if piece.floating not in piece.journal:
        piece.journal.add(piece.floating, {"milliseconds": 1e3 * found[piece.floating].median})
    floating = _number(piece.journal, piece.floating, "milliseconds")
    for key, latency in found.items():
        if key != piece.floating:
            # By the ratio to the floating layer in the same rounds: what an earlier run has
            # journaled may come from a busier hour.
            piece.journal.add(key, {"milliseconds": floating * latency.ratio})


def _number(journal: Journal, key: str, field: str) -> float:
    value = journal[key].get(field)
    if isinstance(value, int | float) and 0 <= value < math.inf:
        return float(value)
    raise JournalError(
        f"{journal.path}: {key}: {field} is {value!r}, no time; delete the file to measure again"
    )


def _profile(
    subject: Subject,
    choices: Sequence[Choice],
    pieces: Mapping[str, Mapping[Choice, str]],
    journal: Journal,
) -> Profile:
    layers: dict[str, LayerProfile] = {}
    whole, share = (_number(journal, _WHOLE, each) for each in ("milliseconds", "layers"))
    alone = _alone(subject, pieces, journal)
    scale = whole * share / alone if alone else 1.0
    for name, runs in subject.runs.layers.items():
        weight = subject.denoiser.get_submodule(name).get_parameter("weight")
        figures: dict[Choice, Figure] = {}
        for choice in dict.fromkeys((Choice(), *choices)):
            if all(choice in pieces[words] for words in runs):
                keys = [pieces[words][choice] for words in runs]
                total = sum(_number(journal, key, "milliseconds") for key in keys)
                kernels = dict.fromkeys(key.rpartition(" | ")[2] for key in keys)
                figures[choice] = Figure(scale * total, ", ".join(kernels) or "not run")
        dtype = str(weight.dtype).removeprefix("torch.")
        layers[name] = LayerProfile(tuple(weight.shape), dtype, runs, figures)
    ratios = {
        choice: _number(journal, key, "ratio")
        for choice in representatives(choices)
        if (key := _packed_key(subject, choice)) in journal
    }
    return Profile(
        model=subject.model,
        denoiser=type(subject.denoiser).__name__,
        batch=subject.work.batch,
        machine=Machine.here(subject.device),
        milliseconds=whole,
        layers=with_delays(layers, whole, ratios),
    )
