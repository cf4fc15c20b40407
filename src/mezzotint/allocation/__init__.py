"""One choice per layer, the largest total score within the limits. Knows numbers only."""

from mezzotint.allocation.average import allocate
from mezzotint.allocation.bit_program import Allocation, BitProgram, decimal
from mezzotint.allocation.exchanges import (
    FEWEST_PROJECTIONS,
    Exchanges,
    Moves,
    find_exchanges,
    stacked_moves,
)
from mezzotint.allocation.front import pareto_front
from mezzotint.allocation.regret import Regret, bootstrapped_regret
from mezzotint.allocation.relaxation import Relaxation
from mezzotint.allocation.solver import solve
from mezzotint.allocation.values import Limit, Option, Problem, Solution, exact

__all__ = [
    "FEWEST_PROJECTIONS",
    "Allocation",
    "BitProgram",
    "Exchanges",
    "Limit",
    "Moves",
    "Option",
    "Problem",
    "Regret",
    "Relaxation",
    "Solution",
    "allocate",
    "bootstrapped_regret",
    "decimal",
    "exact",
    "find_exchanges",
    "pareto_front",
    "solve",
    "stacked_moves",
]
