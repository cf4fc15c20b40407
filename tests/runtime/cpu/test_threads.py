"""Several threads for one C function: every range once, on torch's threads or our own."""

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from mezzotint.formats import AffineSegment, pack
from mezzotint.runtime.cpu import bound_layer, library, native, panels, units
from mezzotint.runtime.cpu.library import function
from mezzotint.runtime.cpu.panels import in_panels
from tests.runtime.layers import packed as packed_layer

pytestmark = pytest.mark.skipif(not native.available(), reason="built without the C functions")


STARTER = library._starter


@pytest.fixture(scope="module", params=["torch-s-threads", "own-threads"])
def whose(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "own-threads":
            patch.setattr(library, "_starter", cache(lambda: None))
        elif STARTER() is None:
            pytest.skip("torch does not show its OpenMP")
        yield request.param


def unpacked(rows: int, threads: int, least: int = 1) -> torch.Tensor:
    codes = torch.arange(rows * 3, dtype=torch.int64).remainder(16).to(torch.uint8).view(rows, 3)
    packed, out = pack(codes, 4), torch.full((rows, 3), 99, dtype=torch.int8)
    work = native._Unpack(packed.data_ptr(), None, out.data_ptr(), 3, 4)
    library.share("mz_unpack", work, rows, threads, least)
    assert torch.equal(out, codes.to(torch.int8) - 8)
    return out


@example(rows=0, threads=2, least=1)
@example(rows=1, threads=9, least=64)
@given(rows=st.integers(0, 200), threads=st.integers(1, 9), least=st.integers(1, 70))
def test_every_row_is_computed(whose: str, rows: int, threads: int, least: int):
    unpacked(rows, threads, least)


def test_python_s_threads_may_share_at_the_same_time(whose: str):
    failed: list[BaseException] = []

    def many() -> None:
        try:
            for rows in range(1, 60):
                unpacked(rows, 3)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=many, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not failed


def work_of(name: str) -> list[Tensor]:
    """Result of one of the functions for many rows; five threads must make the same."""
    torch.manual_seed(0)
    rows, columns = 203, 37
    x, scale, shift = torch.randn(rows, columns), torch.rand(rows), torch.rand(columns)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    packed, out = pack(codes, 4), torch.empty(rows, columns)
    code_range = native.CodeRange(3, -128, 127, 128)
    match name:
        case "dequantize":
            affine = (torch.rand(rows, 3), torch.rand(rows, 3), 16)
            native.dequantize(packed, 4, affine, out)
        case "look_up":
            native.look_up(packed, 4, torch.rand(rows, 16), out)
        case "peaks":
            return [native.peaks(x)]
        case "quantize":
            return [*native.quantize(x, None, code_range), *native.quantize(x, scale, code_range)]
        case "quantize_asymmetric":
            zeros = torch.empty(rows, dtype=torch.int32)
            return [*native.quantize(x, None, native.CodeRange(0, 0, 255, 0), zeros), zeros]
        case "quantize_image":
            pixels = torch.empty(columns, rows, dtype=torch.uint8), torch.empty(columns)
            native.quantize_image(x, 0.1, code_range, *pixels)
            turned = torch.empty(rows, columns, dtype=torch.uint8), torch.empty(rows)
            native.quantize_image(x.t().contiguous(), 0.1, code_range, *turned)
            return [*pixels, *turned]
        case "rescale":
            native.rescale(x, scale, scale, (shift, shift), out)
        case "panels":
            return panels_of(AffineSegment((rows, columns), 4, packed, torch.rand(rows, 1), None))
        case "layer":
            return layers_of(x)
    return [out]


def panels_of(segment: AffineSegment) -> list[Tensor]:
    unit = units.unit()
    if unit is None:
        pytest.skip("this processor has none of the vector units")
    found = in_panels(segment, unit)
    return [found.data, found.totals]


def layers_of(x: Tensor) -> list[Tensor]:
    linear = packed_layer(torch.nn.Linear(x.shape[1], 70), "int3/channel", "uint8/token")
    conv = packed_layer(torch.nn.Conv2d(5, 70, 3, padding=1), "uint4/channel", "int8/token")
    image = torch.randn(3, 5, 9, 8)
    return [linear(x), conv(image), conv(image.contiguous(memory_format=torch.channels_last))]


@pytest.mark.parametrize(
    "name",
    [
        "dequantize",
        "look_up",
        "peaks",
        "quantize",
        "quantize_asymmetric",
        "quantize_image",
        "rescale",
        "panels",
        "layer",
    ],
)
def test_many_threads_compute_what_one_does(whose: str, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = work_of(name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for _ in range(3):
        assert all(map(torch.equal, work_of(name), alone))


@pytest.mark.parametrize(
    "structure",
    [
        native._Unpack, native._Dequantize, native._LookUp, native._Peaks, native._Quantize,
        native._QuantizePixels, native._Rescale, panels._Panels, panels._Segment,
        bound_layer._Layer, bound_layer._Call,
    ],
    ids=lambda structure: structure.__name__.strip("_"),
)  # fmt: skip
def test_structures_are_those_of_the_c_files(structure: type[ctypes.Structure]):
    assert ctypes.sizeof(structure) == function(f"mz_size_of_{structure.__name__.strip('_')}")()


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="another torch"
)
def test_torch_s_threads_are_found_where_its_wheels_show_them():
    assert STARTER() is not None


@pytest.mark.parametrize(
    ("count", "cost", "expected"),
    [
        pytest.param(100, 0, 1, id="nothing-to-do"),
        pytest.param(0, 1 << 30, 1, id="no-rows"),
        pytest.param(100, (1 << 18) * 2, 2, id="as-many-as-it-is-worth"),
        pytest.param(100, 1 << 30, 4, id="no-more-than-torch-uses"),
        pytest.param(3, 1 << 30, 3, id="no-more-than-rows"),
    ],
)
def test_threads_are_used_where_they_pay(
    count: int, cost: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(library, "_WORTH_A_THREAD", 1 << 18)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert library.threads_for(count, cost) == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_computes_too(whose: str):
    unpacked(50, 3)
    child = os.fork()
    if not child:
        try:
            unpacked(50, 3)
            os._exit(0)
        finally:
            os._exit(1)
    # A child that waits for threads that are not there would wait for ever.
    assert _ended(child, seconds=20) == 0


def _ended(child: int, seconds: float) -> int | None:
    deadline = threading.Event()
    for _ in range(int(seconds * 20)):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        deadline.wait(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def test_a_machine_without_openmp_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch):
    def nothing(name: str | None) -> object:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    STARTER.cache_clear()
    try:
        assert STARTER() is None
    finally:
        STARTER.cache_clear()
