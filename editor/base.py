"""What every editor shares: capture into running statistics, the report of a step, writing shifts into sites.

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from config.schema import EditorConfig
from data.batches import Batch, StepBatches
from editor.cache import RowCache
from editor.capture import Rows, capture
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
class StatisticsRecord:
    """Running statistics of one weight shape: rows seen, root mean square deviation of keys and value gradients."""

    rows: int
    key_std: float
    gradient_std: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """One written step; `sites` by name, `statistics` by weight shape, `seconds` by phase."""

    loss: float
    tokens: int
    sites: dict[str, SiteRecord]
    statistics: dict[str, StatisticsRecord]
    seconds: dict[str, float]


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


class Editor(ABC):
    """The state of a lifelong run: running statistics per weight shape, and the last step's shifts."""

    def __init__(
        self,
        cfg: EditorConfig,
        model: PreTrainedModel,
        sites: Sequence[EditSite],
        cache: RowCache,
        solve_device: torch.device,
        *,
        covariance: bool = False,
    ) -> None:
        self.cfg, self.model, self.sites, self.cache = cfg, model, list(sites), cache
        self.solve_device = solve_device
        self.statistics = {
            site.shape: RunningStatistics(*site.shape, covariance=covariance, device=solve_device) for site in sites
        }
        self.last_shifts: dict[str, Shift] = {}

    @abstractmethod
    def shifts(self, micro_batches: int, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """The shift of every site, from the rows in the cache and the statistics as they are now."""

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights."""
        watch = Stopwatch()
        try:
            loss, tokens = self.capture_rows(batches.edit, watch)
            shifts = self.shifts(len(batches.edit), watch, warm_up=warm_up)
        finally:
            self.cache.clear()
        with watch("write"):
            records = self.write(shifts)
        return StepReport(loss, tokens, records, self.describe_statistics(), dict(watch.seconds))

    def capture_rows(self, batches: Sequence[Batch], watch: Stopwatch) -> tuple[float, int]:
        """Run the edit batches: rows go to the statistics and the cache; returns mean loss and answer tokens."""
        losses, tokens = [], 0
        for index, batch in enumerate(batches):
            with watch("capture"):
                captured = capture(self.model, self.sites, batch.to(self.model.device), self.cfg.token)
                rows = [row.to(self.solve_device) for row in captured.rows]
            with watch("statistics"):
                for site, row in zip(self.sites, rows, strict=True):
                    self.statistics[site.shape].add(row.keys_NK, row.gradients_NV)
            with watch("cache"):
                self.cache.put(index, rows)
            losses.append(captured.loss)
            tokens += captured.tokens
        return torch.stack(losses).mean().item(), tokens

    def gather(self, site: int, micro_batches: int) -> Rows:
        """All rows of one site in the current step."""
        rows = [self.cache.get(batch, site) for batch in range(micro_batches)]
        return Rows(torch.cat([row.keys_NK for row in rows]), torch.cat([row.gradients_NV for row in rows]))

    def write(self, shifts: Sequence[Shift]) -> dict[str, SiteRecord]:
        """Add every shift to its site's weight and say what it did."""
        records = {}
        for site, shift in zip(self.sites, shifts, strict=True):
            lost = site.add(shift.matrix())
            cosine = shift_cosine(shift, self.last_shifts.get(site.name))
            records[site.name] = SiteRecord(shift.norm().item(), cosine, lost.item())
            self.last_shifts[site.name] = shift
        return records

    def describe_statistics(self) -> dict[str, StatisticsRecord]:
        """The running statistics in three numbers per shape."""
        return {str(shape): _describe(statistics) for shape, statistics in self.statistics.items()}


def shift_cosine(shift: Shift, previous: Shift | None) -> float | None:
    """Cosine between two shifts of a site; None without a previous one, 0 if one of them is zero."""
    if previous is None:
        return None
    product = (shift.norm() * previous.norm()).item()
    return shift.inner(previous).item() / product if product > 0 else 0.0


def _describe(statistics: RunningStatistics) -> StatisticsRecord:
    variance_D: Tensor = statistics.std_D.square()
    keys, gradients = variance_D[: statistics.d_k], variance_D[statistics.d_k :]
    return StatisticsRecord(statistics.n, keys.mean().sqrt().item(), gradients.mean().sqrt().item())
