"""Training of any plan's packed form: LoRA inside the rounding, learned scales, distillation."""

from mezzotint.training.curve import Curve, Point
from mezzotint.training.entry import train
from mezzotint.training.options import Rates, Training
from mezzotint.training.resumption import check_state, has_state
from mezzotint.training.states import discard_training, only_here
from mezzotint.training.student import Student

__all__ = [
    "Curve",
    "Point",
    "Rates",
    "Student",
    "Training",
    "check_state",
    "discard_training",
    "has_state",
    "only_here",
    "train",
]
