"""Means, differences and slopes with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from scipy.stats import linregress
from scipy.stats import t as student

from report.metrics import interval


class Estimate(NamedTuple):
    """A number with its 95 % interval and what it was estimated from."""

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Value and interval as a person reads them."""
        value, low, high = (f"{number:{'+' if sign else ''}.{digits}f}" for number in self[:3])
        return f"{value} ({low} to {high})"

    def times(self, factor: float) -> Estimate:
        """The same in another unit, or the other way round."""
        low, high = sorted((factor * self.low, factor * self.high))
        return Estimate(factor * self.value, low, high, self.n)


def _student(value: float, error: float, freedom: int, n: int) -> Estimate:
    half = float(student.ppf(0.975, freedom)) * error
    return Estimate(value, value - half, value + half, n)


def mean(values: pd.Series) -> Estimate | None:
    """The mean of independent values, with Student's interval; None for fewer than two."""
    n = len(values)
    return _student(values.mean(), float(values.std() / math.sqrt(n)), n - 1, n) if n > 1 else None


def pooled(values: pd.Series, counts: pd.Series) -> Estimate | None:
    """The mean of means over so many shares each, with Wilson's interval; None where nothing was counted."""
    n = int(counts.sum())
    value = float((values * counts).sum()) / max(n, 1)
    return Estimate(value, *interval(value, n), n) if n else None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from their intervals."""
    value = a.value - b.value
    low, high = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - low, value + high, min(a.n, b.n))


def slope(curves: pd.DataFrame, x: str, y: str) -> Estimate | None:
    """The common slope by least squares, each seed with its own intercept; None for too few points or one x."""
    by_seed = curves[[x, y]].astype(float).groupby(curves["seed"])
    centred = curves[[x, y]] - by_seed.transform("mean")
    freedom = len(curves) - by_seed.ngroups - 1
    if freedom < 1 or not centred[x].any():
        return None
    line = linregress(centred[x], centred[y])  # which takes it that one mean was estimated, not one for each seed
    return _student(line.slope, line.stderr * math.sqrt((len(curves) - 2) / freedom), freedom, len(curves))


def paired(a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str]) -> Estimate | None:
    """The mean over the edits (rows) scored in both of a's mean over `metrics` minus b's; None for fewer than two."""
    gaps = a.reindex(columns=list(metrics)) - b.reindex(columns=list(metrics))
    return mean(gaps.dropna().mean(axis=1))
