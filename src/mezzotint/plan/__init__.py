"""The plan: which format every layer's weight and input take. The only place that says so."""

from mezzotint.plan.choice import Choice
from mezzotint.plan.plan import VERSION, Difference, Plan, diff, dumps

__all__ = ["VERSION", "Choice", "Difference", "Plan", "diff", "dumps"]
