"""Several threads for one C function: every range once, on torch's threads or our own."""

import ctypes
import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.formats import pack
from mezzotint.runtime.cpu import native, team

pytestmark = pytest.mark.skipif(not native.available(), reason="built without the C functions")


STARTER = team._starter


@pytest.fixture(scope="module", params=["torch-s-threads", "own-threads"])
def whose(request: pytest.FixtureRequest):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "_WORTH_A_THREAD", 1)
        if request.param == "own-threads":
            patch.setattr(team, "_starter", lambda: None)
        elif STARTER() is None:
            pytest.skip("torch was built without GNU's OpenMP")
        yield request.param


def unpacked(rows: int, threads: int, least: int = 1) -> torch.Tensor:
    codes = torch.arange(rows * 3, dtype=torch.int64).remainder(16).to(torch.uint8).view(rows, 3)
    packed, out = pack(codes, 4), torch.full((rows, 3), 99, dtype=torch.int8)
    work = native._Unpack(packed.data_ptr(), out.data_ptr(), 3, 4)
    team.share("mz_unpack", work, rows, threads, least)
    assert torch.equal(out, codes.to(torch.int8) - 8)
    return out


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

    threads = [threading.Thread(target=many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


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
    monkeypatch.setattr(team, "_WORTH_A_THREAD", 1 << 18)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert team.threads_for(count, cost) == expected


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
