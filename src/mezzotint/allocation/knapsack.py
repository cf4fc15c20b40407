"""The exact optimum under one limit, in milliseconds.

This is the multiple-choice knapsack problem. Its Lagrangian relaxation charges a price per unit
of weight and lets each layer choose for itself. At the critical price that split lies within one
layer of the limit, and a search about it ends soon (Pisinger, "A minimal algorithm for the
multiple-choice knapsack problem", European Journal of Operational Research 83, 1995), where
branch and cut takes tenths of seconds and meets the limit with a tolerance only.
"""

from __future__ import annotations

import numpy as np

from mezzotint.allocation.refinement import Floats, Limited, Refinement, fractions
from mezzotint.allocation.table import Found, OneSidedLimit, Selection, Table

_EXACT = 1 << 53
"""Sums of whole numbers below this are exact in float64."""


def within_one_limit(table: Table, side: OneSidedLimit, gap: float) -> Found:
    """Minimise the total loss within one limit, which `side.least()` is known to meet.

    If the search grows too large, it stops at a `gap` given as a fraction of the loss, or at what
    it has.
    """
    lightest = side.weights.min(axis=1, keepdims=True)
    weights = side.weights - lightest
    reach = int(weights.max(axis=1).sum())
    most = min(side.bound - int(lightest.sum()), reach)
    if reach < _EXACT:
        return _minimise(table, Limited(weights.astype(np.float64), most), gap)
    # Rounded down, all that was within the limit still is: an optimum of that which keeps to the
    # limit is the optimum. If it does not, exact integers decide, at the pace of Python.
    step = -(-reach // _EXACT)
    found = _minimise(table, Limited((weights // step).astype(np.float64), most // step), gap)
    if side.allows(found.choice):
        return found
    return _minimise(table, Limited(weights, most), gap)


def _minimise(table: Table, limited: Limited, gap: float) -> Found:
    split, price = _split(table.loss, limited)
    total = table.total_loss(split)
    if price == 0:
        return Found(split, total)
    settled = Refinement.of(split, price, table.loss, limited).settle(gap, total)
    best = table.total_loss(settled.choice)
    return Found(settled.choice, best if settled.proven else min(total + settled.lower, best))


def _split(loss: Floats, limited: Limited) -> tuple[Selection, float]:
    """Solve the relaxation: a choice of at most the weight, and the critical price of the reach.

    The price is the slope, at the limit, of the lower convex hull of the attainable (weight,
    loss) totals. A chord between the nearest known hull points on both sides of the limit has
    that slope unless some total lies below it, which is then the next hull point.
    """
    rows = np.arange(len(loss))
    fraction = fractions(limited.weights, limited.reach())
    heavy = np.lexsort((fraction, loss), axis=1)[:, 0]
    if limited.total(heavy) <= limited.most:
        return heavy, 0.0
    light = np.where(limited.weights == 0, loss, np.inf).argmin(axis=1)
    while True:
        rise = (loss[rows, light] - loss[rows, heavy]).sum()
        run = (fraction[rows, heavy] - fraction[rows, light]).sum()
        price = float(rise / run)
        if price <= 0:
            return light, 0.0
        charged = loss + price * fraction
        between = charged.argmin(axis=1)
        saving = (charged[rows, light] - charged[rows, between]).sum()
        weight = limited.total(between)
        if saving <= 0 or not limited.total(light) < weight < limited.total(heavy):
            return _fill(light, heavy, limited), price
        if weight <= limited.most:
            light = between
        else:
            heavy = between


def _fill(light: Selection, heavy: Selection, limited: Limited) -> Selection:
    """Move layers from their light to their heavy option, in order, while they fit."""
    split = light.copy()
    rows = np.arange(len(split))
    room = limited.most - limited.total(light)
    more = limited.weights[rows, heavy] - limited.weights[rows, light]
    for layer in np.flatnonzero(light != heavy):
        if more[layer] <= room:
            room -= more[layer]
            split[layer] = heavy[layer]
    return split
