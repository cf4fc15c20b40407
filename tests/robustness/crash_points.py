"""Kill a save before each of its file-system events: `python -m tests.robustness.crash_points`.

Arguments: the kind of save, a folder to work in, what it replaces, and the greatest number of
events to kill at (0 for all). Prints JSON: the events, and for every kill what it left.

A process of its own, since it forks: a child for each kill, which dies like one that is killed, and
one more that saves again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from mezzotint import _durable
from mezzotint._durable import EXCHANGE_EVENT
from mezzotint._files import write_json
from mezzotint._folders import replacing_folder
from mezzotint._journal import Journal

KILLED = 137
OUTPUT = "out"
UNIT = "a | int4/channel"

MEASURED = ("--formats", "int3/channel,int8/channel", "--regret", "9", "--no-exchanges")
"""Fewer formats and probes: each kill has the model measured once more."""

CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.truncate",
    "os.symlink",
    "os.link",
    EXCHANGE_EVENT,
}

Event = tuple[str, str]
Save = Callable[[Path], object]


def folder_save(output: Path) -> None:
    """Three files in a folder, and one in a folder below."""
    with replacing_folder(output) as folder:
        (folder / "below").mkdir()
        for name in ("model_index.json", "b.json", "below/c.json"):
            write_json(folder / name, {"content": "new"})


def measured(_: Path) -> Save:
    """The same at the end of a run of the command that keeps a journal."""
    for module in ("mezzotint.recipes.job", "mezzotint.training"):
        import_module(module)  # here, or each child does it anew
    from mezzotint.cli._output import reserved
    from mezzotint.cli._results import kept_work

    def save(output: Path) -> None:
        with reserved(output, force=True), kept_work(output, resume=True, force=True) as path:
            with Journal(path, {"model": "tiny"}) as journal:
                if UNIT not in journal:
                    journal.add(UNIT, {"noise": 0.5})
            folder_save(output)

    return save


def pipeline_save(folder: Path) -> Save:
    """A quantized pipeline of three models."""
    import mezzotint as mz
    from tests.models import tiny

    pipe = mz.load(tiny.save_few_step(folder.with_name("source")))
    result = mz.apply(pipe, mz.uniform_plan(pipe.unet, weight_bits=4, act_bits=8))
    return result.save


def packing(folder: Path) -> Save:
    """The same, packed from disk to disk."""
    import mezzotint as mz
    from tests.models import tiny

    source = tiny.save_few_step(folder.with_name("source"))
    storage = mz.Storage(shard_bytes=40_000)
    return lambda output: mz.quantize_checkpoint(source, output, weight_bits=4, storage=storage)


def quantizing(folder: Path) -> Save:
    """The command that measures, plans, packs and saves, taken up again where it was killed."""
    from mezzotint.cli import app
    from tests.models import tiny

    source = folder.with_name("source")
    pipe = tiny.tiny_stable_diffusion()
    pipe.register_modules(unet=tiny.smallest_unet(attention=False))
    pipe.save_pretrained(source)
    tiny.write_generation(source, num_inference_steps=1, guidance_scale=1.0)
    (source / "prompts.txt").write_text("owl\napple\n")

    def save(output: Path) -> None:
        command = ["quantize", str(source), "-o", str(output), "--resume", "--force", *MEASURED]
        assert app(command, standalone_mode=False) in (0, None)

    return save


SAVES: dict[str, Callable[[Path], Save]] = {
    "folder": lambda _: folder_save,
    "measured": measured,
    "pipeline": pipeline_save,
    "packing": packing,
    "quantize": quantizing,
}


def watch(happens: Callable[[Event], None]) -> None:
    """Have `happens` called before every event, from now on."""

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name in CHANGES or (name == "open" and _writes(arguments)):
            happens((name, _path(arguments[1 if name == "os.rename" else 0])))

    def synced(descriptor: int) -> None:
        happens(("os.fsync", _path(descriptor)))

    def serialized(tensors: object, path: object, metadata: object = None) -> None:
        happens(("serialize", str(path)))
        serialize(tensors, path, metadata=metadata)
        happens(("serialized", str(path)))

    os.fsync = synced
    # Written in Rust, which Python hears nothing of; there only if the save has use for it.
    writer = sys.modules.get("safetensors.torch")
    if writer is not None:
        serialize, writer.serialize_file = writer.serialize_file, serialized
    sys.addaudithook(hook)


def _writes(arguments: tuple[object, ...]) -> bool:
    path, _, flags = arguments
    written = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    return not isinstance(path, int) and bool(flags & written) and os.fspath(path) != os.devnull


def _path(where: object) -> str:
    if isinstance(where, int):
        return str(Path(f"/proc/self/fd/{where}").readlink())
    return os.fsdecode(where)


def forked(work: Callable[[], object]) -> int:
    """Do it in a child; returns the exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def recorded(save: Save, output: Path, log: Path) -> list[Event]:
    """The events of a save that is not killed."""

    def work() -> None:
        events: list[Event] = []
        watch(events.append)
        save(output)
        log.write_text(json.dumps([list(each) for each in events]))

    assert forked(work) == 0
    return [tuple(each) for each in json.loads(log.read_text())]


def kill_at(save: Save, output: Path, index: int) -> int:
    """Save, and die before the event of that number."""

    def work() -> None:
        left = index

        def count(_: Event) -> None:
            nonlocal left
            if left == 0:
                os._exit(KILLED)
            left -= 1

        watch(count)
        save(output)

    return forked(work)


def content(folder: Path) -> dict[str, str] | None:
    """Digest of every file; None where there is no folder."""
    if not folder.is_dir():
        return None
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def name_of(found: dict[str, str] | None, old: object, new: object) -> str:
    return "new" if found == new else "old" if found == old else "damaged"


def main(kind: str, place: str, replaces: str, most: str) -> None:
    os.fsync = os.fstat  # a kill loses nothing that the system has been given; a disk takes long
    folder = Path(place)
    save = SAVES[kind](folder / "work")
    if replaces == "by two renames":
        _durable._renameat2 = lambda: None
    reference = folder / "reference" / OUTPUT
    # In a child as well: a process that has computed cannot be forked for sure.
    assert forked(lambda: save(reference)) == 0
    new, old = content(reference), None
    if replaces != "nothing":
        old = {"model_index.json": hashlib.sha256(b"{}").hexdigest()}

    def fresh() -> Path:
        shutil.rmtree(folder / "work", ignore_errors=True)
        output = folder / "work" / OUTPUT
        output.parent.mkdir()
        if old is not None:
            output.mkdir()
            (output / "model_index.json").write_text("{}")
        return output

    events = recorded(save, fresh(), folder / "log.json")
    step = max(1, -(-len(events) // int(most))) if int(most) else 1
    kills = []
    for index in range(step // 2, len(events), step):
        output = fresh()
        code = kill_at(save, output, index)
        journal = output.with_name(f"{OUTPUT}.journal.jsonl")
        former = content(output.with_name(f".{OUTPUT}.former"))
        left = {
            "event": index,
            "code": code,
            "output": name_of(content(output), old, new),
            "former": former is not None and former == old,
            "journal": journal.exists() and UNIT in journal.read_text(),
        }
        again = forked(lambda output=output: save(output))
        kills.append(
            left
            | {
                "again": again,
                "output again": name_of(content(output), old, new),
                "beside": sorted(each.name for each in output.parent.iterdir()),
            }
        )
    print(json.dumps({"events": events, "kills": kills}))


if __name__ == "__main__":
    main(*sys.argv[1:])
