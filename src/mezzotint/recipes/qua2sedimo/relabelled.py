"""A second round of labels near the configuration that the first led to."""

from __future__ import annotations

from mezzotint.recipes.qua2sedimo.decision import Decision
from mezzotint.recipes.qua2sedimo.method import Method


def relabelled(method: Method, decision: Decision) -> Method: ...
