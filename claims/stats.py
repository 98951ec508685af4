"""Means, differences and slopes with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval and what it was estimated from."""

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 3, *, sign: bool = False) -> str:
        """Value and interval as a person reads them."""
        plus = "+" if sign else ""
        return f"{self.value:{plus}.{digits}f} ({self.low:{plus}.{digits}f} to {self.high:{plus}.{digits}f})"

    @property
    def above(self) -> bool:
        """The whole interval lies above 0."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """The whole interval lies below 0."""
        return self.high < 0


def mean(values: Sequence[float]) -> Estimate | None:
    """The mean of independent values, with Student's interval; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    middle = float(np.mean(values))
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1)) / math.sqrt(n)
    return Estimate(middle, middle - half, middle + half, n)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of two independent estimates, from their intervals."""
    value = a.value - b.value
    low = math.hypot(a.value - a.low, b.high - b.value)
    high = math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, value - low, value + high, min(a.n, b.n))


def slope(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Estimate | None:
    """The common slope of curves (x, y) by least squares, each curve with an intercept of its own.

    None where there are too few points, or x does not vary.
    """
    x = np.concatenate([np.asarray(xs, float) - np.mean(xs) for xs, _ in curves]) if curves else np.zeros(0)
    y = np.concatenate([np.asarray(ys, float) - np.mean(ys) for _, ys in curves]) if curves else np.zeros(0)
    freedom, spread = len(x) - len(curves) - 1, float((x**2).sum())
    if freedom < 1 or spread == 0:
        return None
    value = float((x * y).sum()) / spread
    residual = float(((y - value * x) ** 2).sum())
    half = float(student.ppf(0.975, freedom)) * math.sqrt(residual / freedom / spread)
    return Estimate(value, value - half, value + half, len(x))


def paired(
    a: Mapping[tuple[int, int], Mapping[str, float]], b: Mapping[tuple[int, int], Mapping[str, float]],
    metrics: Sequence[str],
) -> Estimate | None:  # fmt: skip
    """The mean over the edits scored in both of a's mean over `metrics` minus b's; None for fewer than two.

    The edits of a run are taken as independent of each other.
    """
    common = [key for key in a if key in b and all(m in a[key] and m in b[key] for m in metrics)]
    return mean([sum(a[key][m] - b[key][m] for m in metrics) / len(metrics) for key in common])
