"""Means with what they are means of: every number names its protocol, denominator and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

HEADLINE = ("ES", "GS", "LS", "person_score", "mhop_score")
PROTOCOLS = {
    "": "token accuracy, teacher-forced",
    "_all": "all answer tokens right, teacher-forced",
    "_agreement": "answer tokens as before editing, teacher-forced",
    "_kl": "KL(before || after) at answer tokens, nats, teacher-forced",
    "_exact": "exact match, greedy generation",
    "_contain": "target contained, greedy generation",
    "_same": "same text as before editing, greedy generation",
}
NINETY_FIVE = 1.959963984540054


def protocol(metric: str) -> str:
    """How a metric is measured: what its name ends with."""
    return next(text for ending, text in reversed(PROTOCOLS.items()) if metric.endswith(ending))


def interval(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a mean of n numbers between 0 and 1.

    Exact for shares; for a mean of values in between it is wider than need be, never narrower:
    among such values with the same mean, 0 and 1 vary most.
    """
    z2 = NINETY_FIVE**2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = NINETY_FIVE / (1 + z2 / n) * math.sqrt(max(value * (1 - value), 0) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


class Tally:
    """Sums and counts by metric."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, metric: str, value: float) -> None:
        """Take in one more edit's number."""
        self.sums[metric] = self.sums.get(metric, 0.0) + value
        self.counts[metric] = self.counts.get(metric, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of every metric that was measured."""
        return {metric: total / self.counts[metric] for metric, total in self.sums.items()}


def merit(after: Mapping[str, float | None], before: Mapping[str, float | None] | None) -> float | None:
    """Mean over ES, GS and LS of after minus before: by it runs are better or worse.

    None if one of them is missing after editing; a missing before counts as 0.
    """
    gains = []
    for metric in ("ES", "GS", "LS"):
        value = after.get(metric)
        if value is None:
            return None
        gains.append(value - ((before or {}).get(metric) or 0.0))
    return sum(gains) / len(gains)


Measured = Mapping[str, tuple[float, int]]
"""Value and denominator by metric."""


def described(after: Measured, before: Measured | None, edits: int, step: int) -> list[dict[str, Any]]:
    """The numbers of results.json's `metrics`: one entry per metric, in the order of PROTOCOLS."""
    endings = list(PROTOCOLS.values())
    entries = []
    for metric in sorted(after, key=lambda name: endings.index(protocol(name))):
        value, n = after[metric]
        entry: dict[str, Any] = {"metric": metric, "protocol": protocol(metric), "edits": edits, "step": step, "n": n}
        entry |= {"value": value} | _bounds("", metric, value, n)
        if before and metric in before:
            entry |= {"before": before[metric][0]} | _bounds("before_", metric, *before[metric])
        entries.append(entry)
    return entries


def _bounds(prefix: str, metric: str, value: float, n: int) -> dict[str, float | None]:
    low, high = (None, None) if metric.endswith("_kl") else interval(value, n)
    return {f"{prefix}low": low, f"{prefix}high": high}
