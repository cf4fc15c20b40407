"""One choice per layer, the largest total score within the limits. Knows numbers only."""

from mezzotint.allocation.average import allocate
from mezzotint.allocation.front import pareto_front
from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, Solution

__all__ = ["Limit", "Option", "Problem", "Solution", "allocate", "pareto_front", "solve"]
