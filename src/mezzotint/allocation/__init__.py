"""One choice per layer, the largest total score within the limits. Knows numbers only."""

from mezzotint.allocation.average import allocate
from mezzotint.allocation.bit_program import Allocation, BitProgram, decimal
from mezzotint.allocation.front import pareto_front
from mezzotint.allocation.regret import Regret, bootstrapped_regret
from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, Solution, exact

__all__ = [
    "Allocation",
    "BitProgram",
    "Limit",
    "Option",
    "Problem",
    "Regret",
    "Solution",
    "allocate",
    "bootstrapped_regret",
    "decimal",
    "exact",
    "pareto_front",
    "solve",
]
