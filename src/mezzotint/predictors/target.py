"""Targets: what a predictor learns, as an expression of a label and of stored bits."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mezzotint.errors import PredictorError, UsageError
from mezzotint.predictors.dataset import Dataset, FloatArray

NAMES = ("metric", "bits")

#: Scaled targets: the best label is at the top, the worst fifth at 0.
TOP, WORST = 50.0, 0.2

_LONGEST = 200

_Value = Callable[[Mapping[str, FloatArray]], FloatArray]

_BINARY: Mapping[type[ast.operator], Callable[[FloatArray, FloatArray], FloatArray]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[FloatArray], FloatArray]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: Mapping[str, Callable[[FloatArray], FloatArray]] = {"log": np.log, "sqrt": np.sqrt}


@dataclass(frozen=True)
class Target:
    """An expression such as `-metric - 150*bits`; the higher, the better a configuration.

    Attributes:
        expression: as it was written.
    """

    expression: str
    _value: _Value = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read an expression of `metric` (a label) and `bits` (stored bits per weight).

        It may hold numbers, + - * /, parentheses, log(…) and sqrt(…). Nothing of it is run as
        code.

        Raises:
            UsageError: it is none of these, has another name, or does not name the metric.
        """
        if len(text) > _LONGEST:
            raise UsageError(f"target: has {len(text)} characters; give {_LONGEST} at most")
        try:
            tree = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as cause:
            raise UsageError(
                f"target {text!r}: is no expression; write one such as '-metric - 150*bits'"
            ) from cause
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        value = _compiled(tree.body, text)
        if "metric" not in names:
            raise UsageError(f"target {text!r}: does not name the metric, so labels say nothing")
        return cls(text, value)

    def of(self, dataset: Dataset, *, reverse: bool = False) -> FloatArray:
        """The target of every label: float64 [n].

        Args:
            dataset: with the labels.
            reverse: the worst configurations become the best ones.

        Raises:
            PredictorError: it is not finite for some label, or the same for all.
        """
        names = {"metric": dataset.values, "bits": dataset.bits}
        with np.errstate(all="ignore"):
            found = np.broadcast_to(self._value(names), dataset.values.shape).astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(found))
        if bad.size:
            raise PredictorError(
                f"target {self.expression!r}: is {found[bad[0]]} for label {bad[0]}, whose metric "
                f"is {dataset.values[bad[0]]}; write another target"
            )
        if found.size and np.ptp(found) == 0:
            raise PredictorError(
                f"target {self.expression!r}: all {found.size} labels have the same; there is "
                "nothing to learn from them"
            )
        return -found if reverse else found


@dataclass(frozen=True)
class Scale:
    """Affine map of targets to what predictors learn: the worst fifth at 0, the best at 50.

    Attributes:
        low: target at 0.
        high: target at 50.
    """

    low: float
    high: float

    @classmethod
    def fit(cls, targets: FloatArray) -> Scale:
        """The scale of these targets, float64 [n].

        Raises:
            PredictorError: they are all the same.
        """
        low, high = float(np.quantile(targets, WORST)), float(targets.max())
        if low == high:  # the best ones are four fifths of all
            low = float(targets.min())
        if low == high:
            raise PredictorError(
                f"all {len(targets)} labels to learn from have the same target; measure others"
            )
        return cls(low, high)

    def scaled(self, targets: FloatArray) -> FloatArray:
        """Targets on the scale: 0 or more, above 50 where they are better than any known."""
        return np.maximum((targets - self.low) / (self.high - self.low) * TOP, 0.0)

    def restored(self, scaled: FloatArray) -> FloatArray:
        """The targets of values on the scale, in their own units."""
        return self.low + scaled * ((self.high - self.low) / TOP)


def _compiled(node: ast.expr, text: str) -> _Value:
    """A function of the names' values that computes the node."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _constant(number, text)
        case ast.Name(id=name) if name in NAMES:
            return lambda names: names[name]
        case ast.Name(id=name):
            raise UsageError(f"target {text!r}: unknown name {name!r}; there are: metric, bits")
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            change, inner = _UNARY[type(sign)], _compiled(operand, text)
            return lambda names: change(inner(names))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            join, first, second = _BINARY[type(sign)], _compiled(left, text), _compiled(right, text)
            return lambda names: join(first(names), second(names))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            function, inner = _FUNCTIONS[name], _compiled(argument, text)
            return lambda names: function(inner(names))
    raise UsageError(
        f"target {text!r}: {ast.unparse(node)!r} is not understood; use numbers, metric, bits, "
        "+ - * /, log(…) and sqrt(…)"
    )


def _constant(number: float, text: str) -> _Value:
    try:
        value = np.array(float(number))
    except OverflowError:
        value = np.array(math.inf)
    if not np.isfinite(value):
        raise UsageError(f"target {text!r}: {number!r} is too large a number")
    return lambda names: value
