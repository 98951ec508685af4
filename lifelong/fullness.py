"""How full the sites are at the end of a run, and how well edits of each age are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editor.sites import EditSite
from report.metrics import Tally

FIRST_AGE = 100
"""Edits ago at which the first group of ages ends; each next one ends at ten times as many."""


def load_of(edits: int, sites: Sequence[EditSite]) -> dict[str, Any]:
    """The load, edits / sum of d_k over the sites, with what it is made of."""
    d_k = sum(site.d_k for site in sites)
    return {"load": edits / d_k, "edits": edits, "sites": len(sites), "d_k": d_k}


class Ages:
    """ES and ES_all of edits by how many edits ago they were written: 0-100, 100-1,000, 1,000-10,000 ..."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.groups: dict[int, Tally] = {}

    def add(self, index: int, scores: Mapping[str, Any]) -> None:
        """Take in the scores of the edited prompt of edit number `index` (from 0)."""
        ago, end = self.total - 1 - index, FIRST_AGE
        while ago >= end:
            end *= 10
        tally = self.groups.setdefault(end, Tally())
        tally.add("ES", scores["tokens"])
        tally.add("ES_all", scores["all"])

    def told(self) -> list[dict[str, Any]]:
        """A row per group, the youngest first: from and to (not included), n, ES, ES_all."""
        return [
            {"from": end // 10 if end > FIRST_AGE else 0, "to": end, "n": tally.counts["ES"], **tally.means()}
            for end, tally in sorted(self.groups.items())
        ]
