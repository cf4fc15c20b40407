"""Writing a quantized pipeline to a folder."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from safetensors import SafetensorError
from torch import nn

from mezzotint._digest_file import DigestFile
from mezzotint._files import JsonFile, at_home, check_no_file, is_taken, read_json
from mezzotint._folders import replacing_folder
from mezzotint._journal import Record
from mezzotint._printable import printable
from mezzotint._stored_dtypes import stored_state
from mezzotint._words import listed
from mezzotint.checkpoint.marking import holds_unmarked, packed_plans
from mezzotint.errors import CheckpointError, MezzotintError, PlanError, UsageError
from mezzotint.models import (
    GENERATION_FILE,
    denoises,
    find_denoisers,
    home_of,
    leads_outside,
    quiet_libraries,
)
from mezzotint.models.source import CONFIG_FILE, INDEX_FILE
from mezzotint.plan import Plan, joined_plan

MEASUREMENTS_FILE = "measurements.jsonl"
"""Journal of what was measured for the plan: `quantize --measurements` takes it up again."""

TRAINING_FILE = "training_curve.json"
"""Curve of the training that the packed weights come from."""

_COMPANIONS = (GENERATION_FILE, "prompts.txt", "LICENSE", "NOTICE")

_CARD = """\
---
library_name: diffusers
tags: [mezzotint, quantized]
---

# {title}

{model}, quantized with mezzotint: {parts} are packed.
{where}; `mezzotint plan show` prints it.

```python
import mezzotint  # registers the quantization method with diffusers
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{name}")
```

Without `import mezzotint` diffusers reports "Unknown quantization type". `mezzotint.load("{name}")`
does both.
"""


def save_pipeline(
    pipe: DiffusionPipeline,
    path: str | Path,
    measurements: Record | None = None,
    training: JsonFile | None = None,
) -> Path:
    """Save a pipeline with packed components; the folder appears complete or not at all.

    Written: everything diffusers writes (safetensors only), a model card, the generation defaults
    and prompts of the original folder, and where given the measurements behind the plan and the
    curve of the training. Floating tensors go back in the dtypes that they came in.

    A pipeline already there is replaced; any other folder with content is left alone.

    Raises:
        CheckpointError: no component is packed, or one only in part, so that it would be saved
            without its plan; a tensor holds NaN or infinity, or the disk is full.
        UsageError: the folder holds something else than a pipeline, or the pipeline's own source,
            or lies within that; another process is at work on it.
    """
    folder = at_home(path).resolve()
    check_replaceable(folder)
    if pipe.name_or_path:
        check_apart(folder, Path(pipe.name_or_path))
    plans = packed_components(pipe, folder)
    with _written(folder), replacing_folder(folder) as temporary:
        with quiet_libraries(), ExitStack() as stored:
            for part in pipe.components.values():
                if isinstance(part, nn.Module):
                    stored.enter_context(stored_state(part))
            pipe.save_pretrained(temporary, safe_serialization=True)
        write_digests(temporary, (name for name in pipe.components if name not in plans))
        if (home := home_of(pipe)) is not None:
            copy_companions(home, temporary)
        if measurements is not None:
            measurements.write(temporary / MEASUREMENTS_FILE)
        if training is not None:
            training.save(temporary / TRAINING_FILE)
        write_card(temporary, folder.name, plans)
    return folder


def packed_components(pipe: DiffusionPipeline, folder: Path) -> dict[str, Plan]:
    """Component → plan of the packed ones of a pipeline that is to be saved.

    Raises:
        CheckpointError: there is none, or one holds packed layers without a plan that would be
            saved with it, and would come back with random weights.
    """
    parts = {name: each for name, each in pipe.components.items() if isinstance(each, nn.Module)}
    for name, part in parts.items():
        if holds_unmarked(part):
            raise CheckpointError(
                f"{folder}: not written, since layers of the pipeline's {name} are packed, but it "
                "has no plan as a whole, without which they could not be loaded; quantize the "
                "whole component, such as by quantize_denoiser"
            )
    plans = packed_plans(pipe)
    if not plans:
        component = " and ".join(find_denoisers(pipe)) or "no component"
        raise CheckpointError(
            f"{folder}: not written, since the pipeline's {component} is not quantized; "
            "quantize it first, or use its own save_pretrained"
        )
    return plans


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Raise CheckpointError where a library cannot write below `folder`."""
    try:
        yield
    except (OSError, SafetensorError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else cause
        raise CheckpointError(
            f"{folder}: cannot be written ({reason}); make room, or name a folder elsewhere"
        ) from cause


def write_digests(folder: Path, components: Iterable[str]) -> None:
    """Write the digests of what is stored beside the denoiser.

    Raises:
        CheckpointError: a tensor holds NaN or infinity; it is named.
    """
    DigestFile.of(folder, components).save(folder / DigestFile.FILE)


def write_card(folder: Path, name: str, plans: Mapping[str, Plan]) -> None:
    """Write the README.md of a quantized pipeline that will be called `name`.

    Args:
        folder: to write to.
        name: of the folder later.
        plans: of the packed components, by name.
    """
    each = [f"{len(plan.quantized)} layers of the\n`{part}`" for part, plan in plans.items()]
    configs = [f"`{part}/config.json`" for part in plans]
    model = next((plan.model for plan in plans.values() if plan.model), None)
    card = _CARD.format(
        title=_plain(name),
        name=name.encode("unicode_escape").decode().replace('"', r"\"").replace("`", r"\x60"),
        model=_plain(model or "A pipeline"),
        parts=listed(each),
        where=f"The plan stands in {listed(configs)}",
    )
    (folder / "README.md").write_text(card, "utf-8")


def _plain(name: str) -> str:
    """A name as text of a page: no markup, no line of its own."""
    text = html.escape(" ".join(printable(name).split()), quote=False)
    return re.sub(r"([\\`*_\[\]()#|~!])", r"\\\1", text)


def check_replaceable(folder: Path) -> None:
    """Refuse, with UsageError, what is neither free nor a pipeline."""
    check_no_file(folder)
    if is_taken(folder) and not (folder / INDEX_FILE).is_file():
        raise UsageError(f"{folder}: holds something else than a pipeline; name a new folder")


def check_apart(target: Path, source: Path) -> None:
    """Refuse, with UsageError, a target that would take the place of its source, or of a part.

    A source that is no local path, such as a repository of the Hub, is apart from all targets.
    """
    folder, origin = at_home(target).resolve(), at_home(source).resolve()
    if origin.exists() and (origin.is_relative_to(folder) or folder.is_relative_to(origin)):
        raise UsageError(f"{folder}: holds the source, or lies within it; name a folder elsewhere")


def check_replaceable_model(folder: Path) -> None:
    """Refuse, with UsageError, what is neither free nor a single model packed by us."""
    check_no_file(folder)
    if is_taken(folder) and not _holds_packed_model(folder):
        raise UsageError(
            f"{folder}: holds something else than a packed model by itself; name a new folder"
        )


def _holds_packed_model(folder: Path) -> bool:
    if (folder / INDEX_FILE).exists():
        return False
    try:
        path, config = next(quantization_configs(folder, PlanError), (None, {}))
    except PlanError:
        return False
    return path == folder / CONFIG_FILE and config.get("plan") is not None


def copy_companions(source: Path, target: Path) -> None:
    """Copy what may lie beside a pipeline's components: defaults, prompts, licences.

    Not what a link leads to outside the source: it is not the model's to publish.
    """
    for name in _COMPANIONS:
        (target / name).unlink(missing_ok=True)
        if (source / name).is_file() and not leads_outside(source / name, source):
            shutil.copyfile(source / name, target / name)


def read_plan(path: str | Path) -> Plan:
    """The plan in a JSON file, or in the folder of a quantized pipeline or denoiser.

    Where several components of a pipeline are quantized, it is the plan of all of them.

    Raises:
        PlanError: there is no plan at `path`, or it is malformed.
    """
    path = Path(path)
    if not path.is_dir():
        return Plan.load(path)
    plans = {
        config_path.parent.name: Plan.from_dict(
            config["plan"], f"{config_path}: quantization_config.plan"
        )
        for config_path, config in quantization_configs(path, PlanError)
        if config.get("plan") is not None
    }
    if len(plans) == 1 and not _others_to_quantize(path, {*plans}):
        return next(iter(plans.values()))
    if plans:
        return joined_plan(plans)
    raise PlanError(f"{path}: no component's config.json holds a plan; is it a quantized model?")


def _others_to_quantize(folder: Path, packed: set[str]) -> bool:
    """True where a pipeline has a denoiser beside what is packed: names of layers need a prefix."""
    index = read_json(folder / INDEX_FILE, PlanError) if (folder / INDEX_FILE).is_file() else {}
    kinds = {
        name: getattr(diffusers, str(each[1]), None)
        for name, each in (index.items() if isinstance(index, dict) else ())
        if isinstance(each, list) and len(each) == 2
    }
    return bool({name for name, kind in kinds.items() if kind and denoises(kind)} - packed)


def quantization_configs(
    folder: Path, error: type[MezzotintError]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each config.json of a quantized model, the folder's own first, and what it says of that.

    Raises:
        MezzotintError: `error`: a file cannot be read, or is not JSON.
    """
    for path in [*folder.glob(CONFIG_FILE), *sorted(folder.glob(f"*/{CONFIG_FILE}"))]:
        if not path.is_file():
            raise error(f"{path}: is no file; copy the model again")
        config = read_json(path, error)
        found = config.get("quantization_config") if isinstance(config, dict) else None
        if isinstance(found, dict) and found:
            yield path, found
