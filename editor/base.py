"""What every editor shares: the report of a step, its clock, and writing shifts into sites."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from data.batches import StepBatches
from editor.ridge import Shift
from editor.sites import EditSite
from nets import RunningStatistics


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """One site in one step: norm of its shift, cosine to the last step's, share of updates lost to rounding."""

    shift_norm: float
    cosine: float | None
    lost_share: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """One written step; `seconds` by phase, `rows` seen so far per weight shape."""

    loss: float
    tokens: int
    sites: dict[str, SiteRecord]
    rows: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)


class Editor(Protocol):
    """What the lifelong loop asks of an editor."""

    sites: list[EditSite]
    statistics: dict[tuple[int, int], RunningStatistics]

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights."""


class Stopwatch:
    """Seconds by phase: `with watch("ridge"): ...` adds to that phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time one stretch of a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - start


def write_shifts(
    sites: Sequence[EditSite], shifts: Mapping[str, Shift], last: Mapping[str, Shift]
) -> dict[str, SiteRecord]:
    """Add every shift to its site's weight and say what it did."""
    records = {}
    for site in sites:
        shift, previous = shifts[site.name], last.get(site.name)
        lost = site.add(shift.matrix())
        norm = shift.norm().item()
        cosine = None
        if previous is not None:
            product = norm * previous.norm().item()
            cosine = shift.inner(previous).item() / product if product > 0 else 0.0
        records[site.name] = SiteRecord(norm, cosine, lost.item())
    return records
