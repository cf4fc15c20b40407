"""Packing of a checkpoint on disk into another, a layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor

from mezzotint._files import at_home
from mezzotint._progress import track
from mezzotint._resuming import digest, resumable_folder
from mezzotint._tensor_digests import digests_of
from mezzotint._tensor_files import write_tensors
from mezzotint.calibration import check_attention
from mezzotint.checkpoint import mark_quantized, read_plan
from mezzotint.checkpoint.diffusers.tensor_digests import config_with_digests
from mezzotint.checkpoint.save import (
    check_apart,
    check_replaceable,
    check_replaceable_model,
    write_card,
)
from mezzotint.checkpoint.streaming.calibrated import Calibrated, find_calibrated
from mezzotint.checkpoint.streaming.calibrating import calibrate_on
from mezzotint.checkpoint.streaming.conversions import (
    Shard,
    conversions_of,
    shards_of,
    unknown_tensors,
)
from mezzotint.checkpoint.streaming.convert_tensor import convert_tensor
from mezzotint.checkpoint.streaming.finished_shards import FinishedShards
from mezzotint.checkpoint.streaming.source_folder import Source, empty_denoiser, find_source
from mezzotint.checkpoint.streaming.stored_tensors import (
    file_digest,
    fingerprint,
    stored_tensors_of,
    weight_files,
)
from mezzotint.checkpoint.streaming.writing import (
    check_room,
    copy_rest,
    digests_of_copies,
    write_index,
)
from mezzotint.errors import CheckpointError, PlanError, UsageError
from mezzotint.models import Call, SourceOptions, check_loras
from mezzotint.models.source import CONFIG_FILE, NO_OPTIONS
from mezzotint.plan import NO_ACTIVATION_BITS, Plan, uniform_plan
from mezzotint.runtime import check_plan


@dataclass(frozen=True)
class Storage:
    """Layout of the tensors in files.

    Attributes:
        dtype: of floating tensors that are not packed (norms, biases, excluded layers); None keeps
            each as the source has it. Modules that the model's class keeps in float32 stay so.
        shard_bytes: bytes of tensors per file. What is in memory before it is written, and what a
            kill may lose.

    Raises:
        UsageError: a value is out of its domain.
    """

    dtype: torch.dtype | None = None
    shard_bytes: int = 2**28

    def __post_init__(self) -> None:
        if self.dtype is not None and not self.dtype.is_floating_point:
            raise UsageError(f"dtype is {self.dtype}; expected a floating one, or None")
        if self.shard_bytes < 1:
            raise UsageError(f"shard_bytes is {self.shard_bytes}; expected 1 or more")


@dataclass(frozen=True, eq=False)
class PlanWithCalls:
    """A plan, and calls in which to find what it needs calibrated.

    Calls are run in the dtype of the source, on weights that stay on disk; without them nothing is
    ever run. Memory holds one layer's weight and what it takes, and what is calibrated.

    Attributes:
        plan: the plan, or its JSON file.
        calls: of the floating denoiser, as `record_calls` gives them.

    Raises:
        UsageError: there are no calls.
    """

    plan: Plan | str | Path
    calls: Sequence[Call]

    def __post_init__(self) -> None:
        if not self.calls:
            raise UsageError("calls: there are none; record some, or give the plan alone")


@dataclass(frozen=True)
class PackedCheckpoint:
    """Files that were written.

    Attributes:
        folder: of the packed pipeline, or of the packed denoiser.
        plan: the choice of every layer.
        denoiser_bytes: bytes of the denoiser's stored tensors.
        left_out: stored tensors of the source for which the model has no place.
    """

    folder: Path
    plan: Plan
    denoiser_bytes: int
    left_out: tuple[str, ...] = ()


def quantize_checkpoint(  # noqa: PLR0913  (all but two are keywords)
    source: str | Path,
    target: str | Path,
    *,
    plan: Plan | PlanWithCalls | str | Path | None = None,
    weight_bits: int | None = None,
    act_bits: int | None = None,
    exclude: tuple[str, ...] = (),
    storage: Storage | None = None,
    options: SourceOptions = NO_OPTIONS,
) -> PackedCheckpoint:
    """Pack a pipeline's denoiser from disk to disk; no more than a layer is ever floating.

    The packed tensors are those that `Result.save` writes for the same plan, bit for bit; what
    stays floating keeps its dtype. `target` appears complete or not at all; after a kill the same
    call goes on behind the last finished shard. Peak memory: the source's largest tensor, one
    shard, and a constant (docs/streaming.md).

    Args:
        source: an embedded name, a pipeline's or a denoiser's folder, or a Hub id.
        target: folder to write, outside the source. A pipeline already there is replaced, or, by a
            single model, another one packed by itself.
        plan: a plan, its JSON file, or the folder of a quantized model: then what comes from
            calibration is taken from there as well. Or a plan with calls to find that in.
        weight_bits: without a plan: one width for all layers, per output channel; 8 by default.
        act_bits: without a plan: 8 for int8 activations per token; 16, the default, for none.
        exclude: without a plan: layers to keep floating, by dotted name, glob or `re:` expression.
        storage: dtype of what stays floating, and size of the files.
        options: revision, variant and token, where the source has a choice; the result's files are
            of no variant.

    Raises:
        ModelError: the source is missing, incomplete, or no model of diffusers.
        CheckpointError: a file is truncated or damaged, a tensor missing or of the wrong shape, or
            another component holds NaN or infinity; or the target cannot be written.
        FormatError: a tensor holds NaN or infinity, or a value that does not fit `dtype`; file and
            tensor are named.
        PlanError: the plan does not fit the model, or needs calibration that is not given.
        UsageError: a width is out of its domain, the source is quantized already, its attention
            cannot be rounded as the plan says, the target holds something else, or another process
            is at the same job.
    """
    storage = storage or Storage()
    found = find_source(source, options)
    folder = _target(Path(target), found)
    files = weight_files(found.denoiser, found.variant)
    model = empty_denoiser(found)
    calls: Sequence[Call] = ()
    if isinstance(plan, PlanWithCalls):
        calls, plan = plan.calls, plan.plan
    if plan is None:
        chosen = uniform_plan(
            model,
            weight_bits=8 if weight_bits is None else weight_bits,
            act_bits=NO_ACTIVATION_BITS if act_bits is None else act_bits,
            exclude=exclude,
            model=found.name,
        )
    elif weight_bits is not None or act_bits is not None or exclude:
        raise UsageError("plan: says every width; leave out weight_bits, act_bits and exclude")
    else:
        chosen = plan if isinstance(plan, Plan) else read_plan(plan)
    if chosen.components:
        raise PlanError(
            f"the plan is of several components ({', '.join(chosen.components)}), and one at a "
            "time is packed from disk to disk; use quantize --plan, or apply"
        )
    check_loras(chosen, ())
    check_plan(model, chosen)
    if chosen.simulated_attention is not None:
        check_attention(model, chosen.simulated_attention)
    # Damage of the other components is found before anything is packed.
    companions = digests_of_copies(found)
    packed = Path(plan) if isinstance(plan, str | Path) and Path(plan).is_dir() else None
    tensors = stored_tensors_of(files)
    with TemporaryDirectory(prefix="mezzotint-calibrated-") as holder:
        inputs: list[object]
        if calls and not chosen.trained:
            calibrated = calibrate_on(calls, found, chosen, Path(holder))
            inputs = [file_digest(file) for file in _files(calibrated)]
        else:
            calibrated = find_calibrated(chosen, model, packed)
            inputs = [fingerprint(file) for file in _files(calibrated)]
        conversions = conversions_of(model, chosen, tensors, storage.dtype)
        shards = shards_of(conversions, storage.shard_bytes)
        job = _job(found, files, chosen, inputs, storage)
        mark_quantized(model, chosen)
        with resumable_folder(
            folder, digest(job), error=CheckpointError, pieces="shards"
        ) as temporary:
            finished = _write(temporary, found, model, shards, calibrated)
            copy_rest(found, temporary, companions)
            if found.component:
                write_card(temporary, folder.name, {found.component: chosen})
            finished.forget()
    size = sum(shard.nbytes for shard in shards)
    return PackedCheckpoint(folder, chosen, size, unknown_tensors(model, tensors))


def _target(target: Path, source: Source) -> Path:
    folder = at_home(target).resolve()
    check_apart(folder, source.folder)
    (check_replaceable if source.component else check_replaceable_model)(folder)
    return folder


def _files(calibrated: Calibrated) -> list[Path]:
    return sorted({tensor.file for tensor in calibrated.values()})


def _job(
    source: Source,
    files: tuple[Path, ...],
    plan: Plan,
    calibrated: list[object],
    storage: Storage,
) -> dict[str, Any]:
    """Everything that decides what the shards hold."""
    return {
        "mezzotint": metadata.version("mezzotint"),
        "files": [fingerprint(file) for file in sorted(files)],
        "calibrated": calibrated,
        "config": (source.denoiser / CONFIG_FILE).read_text("utf-8"),
        "plan": plan.to_dict(),
        "dtype": str(storage.dtype),
        "shard_bytes": storage.shard_bytes,
    }


def _write(
    temporary: Path,
    source: Source,
    model: ModelMixin,
    shards: tuple[Shard, ...],
    calibrated: Calibrated,
) -> FinishedShards:
    """Write the denoiser; the digests of its shards stay beside them until all else is there."""
    folder = temporary / source.component if source.component else temporary
    folder.mkdir(exist_ok=True)
    finished = FinishedShards(folder)
    todo = finished.pending(shards)
    check_room(temporary, source, todo)
    plan: Plan = model.hf_quantizer.plan
    tensors: dict[str, Tensor] = {}
    work = [(shard, conversion) for shard in todo for conversion in shard.conversions]
    for shard, conversion in track(work, "Packing"):
        tensors.update(convert_tensor(conversion, model, plan, calibrated))
        if conversion is shard.conversions[-1]:
            digests = digests_of(tensors, folder / shard.file)
            write_tensors(folder / shard.file, tensors)
            finished.add(shard, digests)
            tensors.clear()
    finished.check_there(shards)
    write_index(folder, shards)
    digests = finished.digests
    names = [name for shard in shards for name in shard.outputs]
    with config_with_digests(model, {name: digests[name] for name in names}):
        model.save_config(folder)
    return finished
