"""Comparison of a bank's tensors with the digests that were written with them."""

from __future__ import annotations

from pathlib import Path

from mezzotint._tensor_digests import file_digests
from mezzotint._verified_file import VerifiedFile
from mezzotint.bank.building import layer_file
from mezzotint.bank.index import BankedLayer, BankIndex
from mezzotint.errors import BankError, CheckpointError


def verify_bank(folder: str | Path) -> tuple[VerifiedFile, ...]:
    """Read every tensor of a bank, and compare its digest.

    Banks of version 1 have no digests, and are said not to be verified.

    Raises:
        BankError: the index is malformed; or a file is missing or damaged, or a tensor is not the
            one that was written: files and tensors are named.
    """
    folder = Path(folder)
    layers = BankIndex.load(folder / BankIndex.FILE).layers
    for name, layer in layers.items():
        check_layer_file(folder, name, layer)
    return tuple(
        VerifiedFile.of(folder, folder / layer_file(name), verified=layer.sha256 is not None)
        for name, layer in layers.items()
    )


def check_layer_file(folder: Path, name: str, layer: BankedLayer) -> None:
    """Compare the tensors of one layer.

    Raises:
        BankError: as `verify_bank`.
    """
    path = folder / layer_file(name)
    try:
        found = file_digests(path)
    except CheckpointError as cause:
        raise _damaged(path, str(cause.__cause__ or cause)) from cause
    expected = found if layer.sha256 is None else dict(layer.sha256)
    unlike = sorted(key for key, _ in found.items() ^ expected.items())
    if unlike:
        raise _damaged(path, f"{unlike[0]} is not what was written")


def _damaged(path: Path, why: str) -> BankError:
    return BankError(f"{path}: is damaged ({why}); delete the bank, and build it anew")
