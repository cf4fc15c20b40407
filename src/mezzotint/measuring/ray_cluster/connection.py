"""Ray, imported without its noise, and the connection to a cluster."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from urllib.parse import urlsplit

from mezzotint.errors import ExecutorError, UsageError, first_line

_IMPORTED = {
    # Lines of Ray's own processes to leave out of standard output: all. Errors come as errors.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
}
STARTED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers do what this process would: not less than other programs of this machine.
    "RAY_worker_niceness": "0",
}
"""Variables by which Ray is set up, where its users have not set them."""

_PATIENCE = 5.0
"""Seconds within which a cluster has to answer."""


def import_ray() -> ModuleType:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        if "ray" in sys.modules:
            return import_module("ray")
        with _variables(_IMPORTED):
            return import_module("ray")
    except ImportError as cause:
        raise UsageError(
            "executor ray: is not installed; run `pip install mezzotint[ray]`"
        ) from cause


def check_reachable(address: str | None) -> None:
    """Refuse an address where nothing answers, for which Ray would wait for minutes.

    Args:
        address: None for none, or that of the variable RAY_ADDRESS.

    Raises:
        UsageError: it is no address.
        ExecutorError: nothing answers.
    """
    address = _address(address)
    if address is None:
        return
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UsageError(
            f"address: {address!r} is none of a Ray cluster; give host:port, as `ray start --head` "
            "prints it; where this machine is not part of the cluster, use `ray job submit`"
        )
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except OSError as cause:
        raise ExecutorError(
            f"address {address}: no Ray cluster answers ({first_line(cause)}); start one with "
            f"`ray start --head` there, and join it here with `ray start --address {host}:{port}`"
        ) from cause


def connect(address: str | None, cores: int | None) -> None:
    """Join a cluster, or start one of this machine; nothing where this process has joined one.

    Args:
        address: as of `check_reachable`.
        cores: that a cluster of this machine offers at least; None for those that there are.

    Raises:
        ExecutorError: the cluster cannot be joined or started; or the process is in another one.
    """
    ray = import_ray()
    address = _address(address)
    if ray.is_initialized():
        joined = ray.get_runtime_context().gcs_address
        if address is not None and address != joined:
            raise ExecutorError(
                f"address {address}: this process has joined the cluster at {joined}; call "
                "ray.shutdown() first"
            )
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        with _variables(STARTED):
            if address is not None:
                ray.init(address=address, **quiet)
            else:
                # Not what else runs on this machine, of which files in /tmp tell.
                count = None if cores is None else max(cores, os.cpu_count() or 1)
                ray.init(address="local", num_cpus=count, include_dashboard=False, **quiet)
    except Exception as cause:  # whatever Ray and the system below may raise
        where = "here" if address is None else f"at {address}"
        raise ExecutorError(
            f"Ray: cannot use a cluster {where} ({first_line(cause)}); see that this machine is "
            "part of it, with the same versions of Ray and Python, and with `ray status`"
        ) from cause


def _address(given: str | None) -> str | None:
    return given or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while, where they are not set."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
