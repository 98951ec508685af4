"""The edits that failed, and the worst of those that took: what a report lists."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from statistics import fmean
from typing import Any

SHOWN = 10
"""Of each of the two lists."""


class Worst:
    """The edits with the lowest mean of ES, GS and LS_agreement, by whether every token of the target was said."""

    def __init__(self) -> None:
        self.scored = self.failed = 0
        self.lists: dict[bool, list[dict[str, Any]]] = {True: [], False: []}

    def add(self, line: Mapping[str, Any], after: Mapping[str, Any], agreement: float | None) -> None:
        """Take in an edit: its line of edits.jsonl, its scores, and how much of its locality is as before."""
        found = {"ES": after["ES"]["tokens"], "GS": after["GS"]["tokens"] if "GS" in after else None}
        found["LS_agreement"] = agreement
        row = {name: line[name] for name in ("index", "step", "prompt", "target")}
        row |= {"said": after["ES"]["prediction"], **found}
        failed = not after["ES"]["all"]
        self.scored, self.failed = self.scored + 1, self.failed + failed
        rows = self.lists[failed]
        insort(rows, row, key=_mean)
        del rows[SHOWN:]

    def told(self) -> dict[str, Any]:
        """For results.json: how many failed of how many scored, and the two lists, the worst first."""
        return {"scored": self.scored, "failed": self.failed, "edits": self.lists[True] + self.lists[False]}


def _mean(row: Mapping[str, Any]) -> float:
    return fmean(value for name in ("ES", "GS", "LS_agreement") if (value := row[name]) is not None)
