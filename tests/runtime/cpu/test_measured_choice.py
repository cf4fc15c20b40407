"""The kernel that serves a class of layers is measured once, and kept."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from mezzotint.errors import UsageError
from mezzotint.runtime.cpu import ONEDNN, OWN, measured_choice, processor, units
from mezzotint.runtime.cpu.machine import Machine
from mezzotint.runtime.cpu.measured_choice import SWITCH, LayerClass
from mezzotint.runtime.kernels import Request, select_kernel
from tests.runtime.layers import conv, linear, packed

pytestmark = pytest.mark.skipif(
    units.unit() is None or not processor.ONEDNN, reason="there are no two kernels to choose from"
)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known yet, as in a new process."""
    monkeypatch.setattr(measured_choice, "_kept", cache(measured_choice._kept.__wrapped__))


def asked(weight: str = "int4/channel", taps: int = 1) -> Request:
    layer = linear() if taps == 1 else conv(kernel=taps)
    return packed(layer, weight, "int8/token").request_on("cpu")


def chosen(request: Request) -> str:
    return select_kernel(request).kernel.name


def measuring(monkeypatch: pytest.MonkeyPatch, own: float, other: float) -> list[str]:
    """Have measurements find these seconds; the names of the classes that are measured."""
    seen: list[str] = []

    def seconds(self: LayerClass, kernels: object) -> dict[str, float]:
        seen.append(self.name)
        return {OWN.name: own, ONEDNN.name: other}

    monkeypatch.setattr(LayerClass, "seconds", seconds)
    return seen


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [(1.0, 2.0, OWN), (2.0, 1.0, ONEDNN), (1.05, 1.0, OWN)],
    ids=["own-is-faster", "onednn-is-faster", "hardly-any-difference"],
)
def test_the_faster_kernel_serves_a_layer(
    own: float, other: float, expected: object, monkeypatch: pytest.MonkeyPatch
):
    measuring(monkeypatch, own, other)
    assert chosen(asked()) == expected.name


def test_a_class_of_layers_is_measured_once(monkeypatch: pytest.MonkeyPatch, folder: Path):
    seen = measuring(monkeypatch, 2.0, 1.0)
    for _ in range(2):
        assert chosen(asked()) == ONEDNN.name
        forget(monkeypatch)
    assert seen == ["rows, unpacked, small"]
    (file,) = (folder / "kernels").glob("*.json")
    assert json.loads(file.read_text("utf-8")) == {
        "machine": Machine.here().to_dict(),
        "milliseconds": {seen[0]: {OWN.name: 2000.0, ONEDNN.name: 1000.0}},
    }


def test_a_process_stays_with_its_choice(monkeypatch: pytest.MonkeyPatch, folder: Path):
    measuring(monkeypatch, 2.0, 1.0)
    assert chosen(asked()) == ONEDNN.name
    (file,) = (folder / "kernels").glob("*.json")
    file.unlink()
    measuring(monkeypatch, 1.0, 2.0)
    assert chosen(asked()) == ONEDNN.name


def test_classes_differ_in_windows_size_and_what_is_held():
    names = {
        LayerClass.of(asked(weight, taps)).name
        for weight in ("int4/channel", "int8/channel")
        for taps in (1, 3)
    }
    assert names == {f"{kind}, {held}, small" for kind in ("rows", "windows")
                     for held in ("held", "unpacked")}  # fmt: skip


def test_a_file_that_is_no_measurement_is_as_none(monkeypatch: pytest.MonkeyPatch, folder: Path):
    seen = measuring(monkeypatch, 2.0, 1.0)
    path = folder / "kernels" / f"{Machine.here().key}.json"
    path.parent.mkdir()
    path.write_text('{"rows, unpacked, small": {"cpu-int8": 1}}', "utf-8")
    assert chosen(asked()) == ONEDNN.name
    assert seen == ["rows, unpacked, small"]


def test_each_number_of_threads_has_times_of_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path):
    before = torch.get_num_threads()
    try:
        for threads, own, taps in ((1, 2.0, 1), (2, 1.0, 1), (2, 1.0, 3)):
            torch.set_num_threads(threads)
            measuring(monkeypatch, own, 1.5)
            chosen(asked(taps=taps))
    finally:
        torch.set_num_threads(before)
    found = [json.loads(file.read_text("utf-8")) for file in (folder / "kernels").glob("*.json")]
    assert {
        each["machine"]["threads"]: [times[OWN.name] for times in each["milliseconds"].values()]
        for each in found
    } == {1: [2000.0], 2: [1000.0, 1000.0]}


def test_without_a_place_to_keep_it_it_is_measured_all_the_same(
    monkeypatch: pytest.MonkeyPatch, folder: Path
):
    measuring(monkeypatch, 2.0, 1.0)
    (folder / "kernels").write_text("a file where the folder should be")
    assert chosen(asked()) == ONEDNN.name


@pytest.mark.parametrize("kernel", [OWN, ONEDNN], ids=lambda kernel: kernel.name)
def test_a_kernel_that_is_named_is_taken_unmeasured(
    kernel: object, monkeypatch: pytest.MonkeyPatch, folder: Path
):
    monkeypatch.setenv(SWITCH, kernel.name)
    assert chosen(asked()) == kernel.name
    assert not list(folder.iterdir())


def test_another_name_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWITCH, "cpu-float")
    with pytest.raises(UsageError, match="MEZZOTINT_INT8 is 'cpu-float'; name 'cpu-int8' or"):
        chosen(asked())


def test_what_the_other_kernel_refuses_stays(monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, 2.0, 1.0)
    monkeypatch.setattr(processor, "ONEDNN", False)
    assert chosen(asked()) == OWN.name


def test_a_measurement_times_both_kernels():
    found = LayerClass(windows=True, held=False, large=False).seconds((OWN, ONEDNN))
    assert found.keys() == {OWN.name, ONEDNN.name}
    assert all(seconds > 0 for seconds in found.values())


def test_measuring_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    for windows in (False, True):
        LayerClass(windows, held=False, large=False).seconds((OWN, ONEDNN))
    assert torch.equal(torch.get_rng_state(), before)
