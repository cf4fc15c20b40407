"""The exception tree: everything that bad input can cause derives from `MezzotintError`.

Each message names the file, field or layer at fault and the remedy. The command line prints the
message and exits with 2.
"""

from __future__ import annotations


class MezzotintError(Exception):
    """Base of every error this package raises on purpose."""


class ModelError(MezzotintError):
    """A model cannot be found, read or understood."""


class CheckpointError(MezzotintError):
    """A stored checkpoint is truncated, inconsistent or not one of ours."""


class FormatError(MezzotintError):
    """A number format's name or parameters are invalid, or do not fit the tensor."""


class PlanError(MezzotintError):
    """A plan is malformed, or does not fit the model it is applied to."""


class ProfileError(MezzotintError):
    """A latency profile is malformed, or of another model or machine."""


class BudgetError(MezzotintError):
    """A budget is malformed."""


class InfeasibleBudgetError(BudgetError):
    """No assignment meets the budget; the message names the nearest feasible one."""


class BankError(MezzotintError):
    """A bank of quantized layers is incomplete, damaged, or of other weights or choices."""


class LabelError(MezzotintError):
    """Labels are lacking or unusable, or of another model, prompts, metric or rounding."""


class CalibrationError(MezzotintError):
    """Weights, recorded inputs or outputs are unusable (NaN, infinite, or none recorded)."""


class CalibrationWarning(UserWarning):
    """Recorded calls tell less than what is asked of them, or nothing of a later one."""


class ProbeError(CalibrationError):
    """A model's backward pass fails or runs out of memory: measure its layers one by one."""


class TrainingError(MezzotintError):
    """Training came upon NaN, or made a model worse; the last good state is kept."""


class PredictorError(MezzotintError):
    """Labels are unusable or too few to learn from, or a stored predictor is malformed."""


class JournalError(MezzotintError):
    """A resumable journal belongs to another run or is damaged beyond its last line."""


class ExecutorError(MezzotintError):
    """Workers outside of this process cannot be reached, have no room, or die again and again."""


class PluginError(MezzotintError):
    """A module by which another package extends this one cannot be imported."""


class UsageError(MezzotintError):
    """An argument of a public function is out of its domain."""


def first_line(error: BaseException) -> str:
    """First line of another library's error, or its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
