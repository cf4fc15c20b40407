"""The verified end."""

from __future__ import annotations

from mezzotint.recipes.qua2sedimo.decision import Decision
from mezzotint.recipes.qua2sedimo.method import Method


def with_trades(method: Method, decision: Decision) -> Decision: ...
