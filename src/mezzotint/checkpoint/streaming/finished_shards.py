"""Shards of a checkpoint that is being packed, and digests of what was written into them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mezzotint._digest_file import DigestFile
from mezzotint._tensor_digests import file_digests
from mezzotint.checkpoint.streaming.conversions import Shard
from mezzotint.checkpoint.streaming.stored_tensors import stored_tensors_of
from mezzotint.errors import CheckpointError


class FinishedShards:
    """Shards in a folder, with the digests of their tensors in a hidden file beside them.

    A shard that is none of those, or no longer what was written, is written again.
    """

    FILE = ".shards.json"

    def __init__(self, folder: Path) -> None:
        """Look at what an interrupted run left in the folder, and remove what it left of a file."""
        self._folder = folder
        for leftover in folder.glob(".*.safetensors.*"):
            leftover.unlink()
        self._files = dict(self._known().files)

    def _known(self) -> DigestFile:
        try:
            return DigestFile.load(self._folder / self.FILE)
        except CheckpointError:  # there is none yet, or a disk lost its last writes
            return DigestFile({})

    @property
    def digests(self) -> dict[str, str]:
        """Tensor → SHA-256, of all finished shards."""
        return {name: each for file in self._files.values() for name, each in file.items()}

    def pending(self, shards: Iterable[Shard]) -> tuple[Shard, ...]:
        """Shards that have yet to be written; of others every tensor is read."""
        return tuple(shard for shard in shards if not self._holds(shard))

    def _holds(self, shard: Shard) -> bool:
        path = self._folder / shard.file
        try:
            return (
                path.is_file()
                and self._fits(shard)
                and self._files.get(shard.file) == file_digests(path)
            )
        except CheckpointError:  # a disk that lost its last writes
            return False

    def _fits(self, shard: Shard) -> bool:
        """True where a file has the tensors of the shard, by its header."""
        found = stored_tensors_of((self._folder / shard.file,))
        return {name: tensor.spec for name, tensor in found.items()} == shard.outputs

    def add(self, shard: Shard, digests: dict[str, str]) -> None:
        """Note that a shard has been written, with these digests of its tensors."""
        self._files[shard.file] = digests
        DigestFile(self._files).save(self._folder / self.FILE)

    def check_there(self, shards: Iterable[Shard]) -> None:
        """Refuse, before the folder is finished, one in which shards are lacking.

        Raises:
            CheckpointError: another program has removed or changed one.
        """
        for shard in shards:
            if not (self._folder / shard.file).is_file() or not self._fits(shard):
                raise CheckpointError(
                    f"{self._folder}: finished shards are gone; repeat the command"
                )

    def forget(self) -> None:
        """Remove the file of digests, which stand in the checkpoint by now."""
        (self._folder / self.FILE).unlink(missing_ok=True)
