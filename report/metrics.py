"""The table of metrics, and means with what they are means of: every number names its protocol, n and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

NINETY_FIVE = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of metrics.yaml; `interval`: whether it is a share, for which Wilson's interval is defined."""

    name: str
    protocol: str
    meaning: str
    interval: bool = True
    headline: bool = False
    better: Literal["up", "down"] = "up"
    unedited: float | None = None
    """What it is before any edit by its very definition, where it compares with the unedited model."""


_TABLE = yaml.safe_load(Path(__file__).with_name("metrics.yaml").read_text(encoding="utf-8"))
TOOK = "_took"
for _name, _row in list(_TABLE.items()):
    if _row.pop("local", False):  # measured over the edits that took, too
        _own = {key: value for key, value in _row.items() if key != "headline"}
        _TABLE[_name + TOOK] = _own | {"meaning": f"{_row['meaning']}; of the edits that took (ES_all)"}
METRICS = {name: Metric(name, **row) for name, row in _TABLE.items()}
HEADLINE = tuple(name for name, row in METRICS.items() if row.headline)
LEAD = tuple(METRICS)[:5]
LOW_LS = 0.25
"""Unedited LS below which LS says little: most of the data's answers are not this model's."""

Measured = Mapping[str, tuple[float, int]]
"""Value and denominator by metric."""


def protocol(metric: str) -> str:
    """How a metric is measured. Raises ValueError for one without a row in METRICS."""
    if metric not in METRICS:
        raise ValueError(f"metric {metric}: has no row in METRICS (report/metrics.yaml)")
    return METRICS[metric].protocol


@dataclass(frozen=True, slots=True)
class Rule:
    """A way to say which run is better: the metrics that tables show with it, and what it is in words."""

    shown: tuple[str, ...]
    words: str


RULES = {
    "gain": Rule(LEAD, "the mean gain of ES_all and GS_all, less what LS_agreement loses"),
    "published": Rule(("ES", "GS", "LS"), "the mean gain of ES, GS and LS"),
}
"""By the values of eval.best."""


def merit(
    after: Mapping[str, float | None], before: Mapping[str, float | None] | None, by: str = "gain"
) -> float | None:
    """The number by which a run, or a step size, is better than another; `by` is one of RULES.

    gain: the mean gain of ES_all and GS_all and the change of LS_agreement, added. Agreement before any edit is 1, so a
    model that is left as it was has 0; 1 is the most that there is. What has no prompts is left out; near neighbours
    stand for unrelated prompts where there are none.
    published: the mean over ES, GS and LS of after minus before; None where one of the three was not measured.
    What was not measured before counts as 0 there; None where nothing was measured after.
    """
    names = RULES[by].shown if by == "published" else ("ES_all", "GS_all")
    pairs = [(after.get(name), (before or {}).get(name) or 0.0) for name in names]
    gains = [value - first for value, first in pairs if value is not None]
    if by == "published":
        return sum(gains) / len(names) if len(gains) == len(names) else None
    kept = after.get("LS_agreement", after.get("LS_neighbour_agreement"))
    return sum(gains) / len(gains) + (0.0 if kept is None else kept - 1.0) if gains else None


def says_little(before: Mapping[str, float | None]) -> str | None:
    """What to know of LS where the unedited model has few of the data's answers; None where it has enough."""
    value = before.get("LS")
    if value is None or value >= LOW_LS:
        return None
    return (
        f"unedited LS is {value:.2f}: the model has few of the data's answers to unrelated prompts, so LS says little; "
        "LS_agreement says what has changed"
    )


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

    def take(self, other: Tally, ending: str = "") -> None:
        """Take in the means of an edit's own tally; with an ending to their names those that have such a row."""
        for metric, value in other.means().items():
            if not ending or metric + ending in METRICS:
                self.add(metric + ending, value)

    def means(self) -> dict[str, float]:
        """The mean of every metric that was measured."""
        return {metric: total / self.counts[metric] for metric, total in self.sums.items()}


def described(after: Measured, before: Measured | None, edits: int, step: int) -> list[dict[str, Any]]:
    """The numbers of results.json's `metrics`: one entry per metric, in the order of METRICS.

    Raises:
        ValueError: a metric without a row in METRICS.
    """
    told, order = {metric: protocol(metric) for metric in after}, list(METRICS)
    entries = []
    for metric in sorted(after, key=order.index):
        entry: dict[str, Any] = {"metric": metric, "protocol": told[metric], "edits": edits, "step": step}
        entry["n"] = after[metric][1]
        for name, prefix, side in (("value", "", after), ("before", "before_", before or {})):
            if metric in side:
                low, high = interval(*side[metric]) if METRICS[metric].interval else (None, None)
                entry |= {name: side[metric][0], f"{prefix}low": low, f"{prefix}high": high}
        if before and METRICS[metric].unedited is not None:
            entry |= {"before": METRICS[metric].unedited, "before_low": None, "before_high": None}
        entries.append(entry)
    return entries
