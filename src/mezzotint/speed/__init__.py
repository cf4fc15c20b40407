"""Speed of packed pipelines on this machine, and the engine that suits them."""

from mezzotint.speed.automatic import ChosenEngine, fastest_engine, with_engine
from mezzotint.speed.expected import planned_sampling, speed
from mezzotint.speed.foretold import foretold_speed
from mezzotint.speed.known_times import KnownTimes

__all__ = [
    "ChosenEngine",
    "KnownTimes",
    "fastest_engine",
    "foretold_speed",
    "planned_sampling",
    "speed",
    "with_engine",
]
