"""A configuration as a change of a model, which metrics measure like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from mezzotint.bank import Bank
from mezzotint.labels.configuration import Configuration
from mezzotint.measuring import PlanChange

PREFIX = "configuration "


@dataclass(frozen=True)
class ConfigurationChange(PlanChange):
    """A whole configuration, on a packed copy of the denoiser.

    Where the original's calibration has the bank for its encoded weights, nothing is encoded.

    Attributes:
        plan: what every layer takes.
        text: of the configuration, see `Configuration.text`: a journal says by itself what it
            holds labels of.
        bank: tells its weights and formats from those of others, where a journal is not of one
            bank alone; empty where it is.
    """

    text: str
    bank: str = ""

    @classmethod
    def of(
        cls, configuration: Configuration, bank: Bank, keys: Sequence[str], formats: Sequence[str]
    ) -> Self:
        """The change that a configuration is.

        Args:
            configuration: a format for every weight.
            bank: has its candidates.
            keys: of the weights, in the order of the text.
            formats: in the order of their places in the text.

        Raises:
            BankError, UsageError: a weight has no such candidate; it is named.
        """
        return cls(bank.plan(configuration), configuration.text(keys, formats))

    @property
    @override
    def name(self) -> str:
        return f"{PREFIX}{self.text} of bank {self.bank}" if self.bank else f"{PREFIX}{self.text}"
