"""The folder for what is kept between runs."""

from pathlib import Path

import pytest

from mezzotint._cache import cache_folder


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    monkeypatch.delenv("MEZZOTINT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_a_variable_names_it(monkeypatch):
    monkeypatch.setenv("MEZZOTINT_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


def test_it_is_among_the_users_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "mezzotint"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/mezzotint")


def test_of_a_user_without_a_home_it_takes_no_files(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="mezzotint"):
        cache_folder().mkdir(parents=True)
