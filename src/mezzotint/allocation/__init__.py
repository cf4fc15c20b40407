"""One choice per layer, the largest total score within the limits. Knows numbers only."""

from mezzotint.allocation.average import allocate
from mezzotint.allocation.front import pareto_front
from mezzotint.allocation.group import Allocation, Group, decimal
from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, Solution, exact

__all__ = [
    "Allocation",
    "Group",
    "Limit",
    "Option",
    "Problem",
    "Solution",
    "allocate",
    "decimal",
    "exact",
    "pareto_front",
    "solve",
]
