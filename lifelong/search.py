"""Which step size to try next: a geometric grid, then between the best one and its neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping

CLOSE = 1.15
"""Neighbours nearer than this ratio are not told apart by a hundred edits."""

Tried = Mapping[float, float | None]
"""The objective by step size; None where the trial failed."""


def best_of(tried: Tried) -> float | None:
    """The step size with the highest objective, the smaller of equals; None where every trial failed."""
    good = {lr: value for lr, value in tried.items() if value is not None}
    return max(sorted(good), key=lambda lr: good[lr]) if good else None


def grid(low: float, high: float, trials: int) -> list[float]:
    """Half of the trials, but two at least where there are two, from low to high in equal ratios."""
    points = min(trials, max(2, (trials + 1) // 2))
    if points == 1:
        return [rounded(math.sqrt(low * high))]
    return [rounded(low * (high / low) ** (place / (points - 1))) for place in range(points)]


def next_lr(tried: Tried, points: list[float]) -> float | None:
    """What is left of the grid; then the middle of the wider gap beside the best, of equal gaps towards the better
    neighbour, or beyond the grid where the best ends it.

    None where the neighbours of the best are as near as they can be told apart, or every trial failed.
    """
    for lr in points:
        if lr not in tried:
            return lr
    best = best_of(tried)
    if best is None or len(tried) < 2:
        return None
    order = sorted(tried)
    at, ratio = order.index(best), points[1] / points[0]
    if at in (0, len(order) - 1):
        return rounded(best * (ratio if at else 1 / ratio))
    value = {lr: -math.inf if tried[lr] is None else tried[lr] for lr in order}
    sides = [(max(lr, best) / min(lr, best), value[lr], lr) for lr in (order[at - 1], order[at + 1])]
    gap, _, other = max((round(math.log(gap), 1), height, lr) for gap, height, lr in sides)
    return rounded(math.sqrt(best * other)) if gap > math.log(CLOSE) else None


def rounded(lr: float) -> float:
    """Two digits: what a preset shows is what was tried."""
    return float(f"{lr:.1e}")
