"""Contents of a bank, as its index tells them: no stored tensor is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mezzotint.bank.index import BankedWeight, BankIndex, Candidate
from mezzotint.bank.weight_nodes import layer_choice
from mezzotint.errors import BankError
from mezzotint.formats import FLOAT
from mezzotint.plan import Choice, Encoding, Plan


class BankContents:
    """Weights of a bank in all their formats: bytes, errors, and plans of configurations.

    Attributes:
        folder: of the bank.
        index: of what stands there.
    """

    def __init__(self, folder: Path, index: BankIndex) -> None:
        self.folder = folder
        self.index = index

    @property
    def digest(self) -> str:
        """A hash of the floating weights of all layers, with their names."""
        return self.index.digest

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all weights, see `node_keys`, in the order in which layers were given."""
        return tuple(self.index.nodes)

    @property
    def formats(self) -> tuple[str, ...]:
        """All weight formats of candidates, in the order in which they were given."""
        nodes = self.index.nodes.values()
        return tuple(dict.fromkeys(name for node in nodes for name in node.candidates))

    @property
    def encoding(self) -> Encoding:
        """The encoding that all weights were rounded by."""
        return self.index.plan.encoding

    @property
    def rounding(self) -> str:
        """Name of the rounding: `nearest`, `feedback` or another."""
        return self.encoding.rounding

    @property
    def inputs(self) -> str | None:
        """Digest of the moments of inputs that the rounding knew; None where it knew none."""
        return self.index.inputs

    def weights(self, key: str) -> int:
        """Number of weights behind a key.

        Raises:
            BankError: there is no such key.
        """
        return self._node(key).weights

    def stored_bytes(self, key: str, weight_format: str) -> int:
        """Bytes of a weight in that format: of all its stored tensors.

        Raises:
            BankError: there is no such key, or it has no such candidate.
        """
        return self._candidate(key, weight_format).bytes

    def error(self, key: str, weight_format: str) -> float:
        """Mean of |w - ŵ|^2.4 per weight in that format, computed in float64.

        Raises:
            BankError: there is no such key, or it has no such candidate.
        """
        return self._candidate(key, weight_format).error

    def plan(self, configuration: Mapping[str, str], *, activation: str = FLOAT) -> Plan:
        """The plan of a configuration, which packs without encoding where this bank is asked.

        Args:
            configuration: key of every weight → format of one of its candidates, or `float`.
            activation: format of the inputs of all layers whose weights are quantized.

        Raises:
            BankError: a key is missing or unknown, or it has no such candidate.
        """
        unknown = [key for key in configuration if key not in self.index.nodes]
        if unknown:
            raise BankError(
                f"configuration: {self.folder} has no weight {unknown[0]}; leave it out"
            )
        choices: dict[str, Choice] = {}
        for name, layer in self.index.layers.items():
            formats = {key: _named(configuration, key) for key in layer.nodes}
            for key, each in formats.items():
                if each != FLOAT:
                    self._candidate(key, each)
            choices[name] = layer_choice(formats, self.index.plan[name].structures, activation)
        return Plan(choices, encoding=self.encoding)

    def _node(self, key: str) -> BankedWeight:
        if key not in self.index.nodes:
            raise BankError(f"{self.folder}: has no weight {key}; take one of its `keys`")
        return self.index.nodes[key]

    def _candidate(self, key: str, weight_format: str) -> Candidate:
        candidates = self._node(key).candidates
        if weight_format not in candidates:
            raise BankError(
                f"{self.folder}: has no {weight_format} of {key}; there are: "
                f"{', '.join(candidates)}"
            )
        return candidates[weight_format]


def _named(configuration: Mapping[str, str], key: str) -> str:
    if key not in configuration:
        raise BankError(f"configuration: says nothing of {key}; give it a format, or 'float'")
    return configuration[key]
