"""A sweep on disk: figures, picture, plans, measurements, and checkpoints on demand."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from mezzotint._files import check_no_file, is_taken, write_json
from mezzotint._folders import replacing_folder
from mezzotint.checkpoint import MEASUREMENTS_FILE
from mezzotint.errors import UsageError
from mezzotint.report.sweep_picture import sweep_picture
from mezzotint.sweeping import Sweep, SweepPoint

FIGURES, PICTURE, PLANS = "sweep.json", "sweep.svg", "plans"


def check_sweep_folder(folder: Path) -> None:
    """Refuse to replace other things than a sweep.

    Raises:
        UsageError: the folder is a file, or holds other things.
    """
    check_no_file(folder)
    if is_taken(folder) and not (folder / FIGURES).is_file():
        raise UsageError(f"{folder}: holds something else than a sweep; name a new folder")


def save_sweep(
    sweep: Sweep,
    folder: str | Path,
    checkpoints: Collection[str] = (),
    pack: Callable[[SweepPoint, Path], object] | None = None,
) -> Path:
    """Write a sweep to a folder, complete or not at all.

    Args:
        sweep: the plans and their figures.
        folder: of the result.
        checkpoints: labels of the points to pack, each into a folder of that name.
        pack: packs a point's plan and saves it to a folder.

    Raises:
        UsageError: the folder is a file, or holds other things, or matplotlib is not installed.
    """
    folder = Path(folder)
    check_sweep_folder(folder)
    value, picture = sweep.to_dict(), sweep_picture(sweep)
    with replacing_folder(folder) as temporary:
        for point, each in zip(sweep.points, value["points"], strict=True):
            each["plan"] = f"{PLANS}/{point.label}.json"
            point.plan.save(temporary / each["plan"])
            each["checkpoint"] = None
            if pack is not None and point.label in checkpoints:
                each["checkpoint"] = point.label
                pack(point, temporary / point.label)
        write_json(temporary / FIGURES, value)
        (temporary / PICTURE).write_text(picture, "utf-8")
        if sweep.record is not None:
            sweep.record.write(temporary / MEASUREMENTS_FILE)
    return folder
