"""One choice per layer, the largest total score within the limits. Knows numbers only."""

from mezzotint.allocation.average import allocate
from mezzotint.allocation.front import pareto_front
from mezzotint.allocation.group import Allocation, Group
from mezzotint.allocation.protect import protected
from mezzotint.allocation.solver import solve
from mezzotint.allocation.split import ACTIVATION_GRID, WEIGHT_GRID, Grid, Span, Split, splits
from mezzotint.allocation.sweep import Candidate, sweep
from mezzotint.allocation.values import Limit, Option, Problem, Solution

__all__ = [
    "ACTIVATION_GRID",
    "WEIGHT_GRID",
    "Allocation",
    "Candidate",
    "Grid",
    "Group",
    "Limit",
    "Option",
    "Problem",
    "Solution",
    "Span",
    "Split",
    "allocate",
    "pareto_front",
    "protected",
    "solve",
    "splits",
    "sweep",
]
