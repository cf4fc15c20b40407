"""Banks: layers in all their stored forms, encoded once, from which plans are packed."""

from mezzotint.bank.bank import Bank
from mezzotint.bank.candidates import POWER, weight_error
from mezzotint.bank.index import BankIndex
from mezzotint.bank.switched import Switched
from mezzotint.bank.verify import verify_bank
from mezzotint.bank.weight_nodes import node_keys

__all__ = ["POWER", "Bank", "BankIndex", "Switched", "node_keys", "verify_bank", "weight_error"]
