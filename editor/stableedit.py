"""StableEdit (arXiv 2605.11836) and, with other settings, ULTRAEDIT.

One step, with k and g the keys and value gradients of its answer tokens:

    statistics over all rows so far, pooled over the sites of one weight shape
    k^ = (k - mean_k) / std_k        g^ = (g - mean_g) C^(-1/2)
    V  = -lr |k^|^2 g^               S = (K^T K + alpha I)^(-1) K^T V        W <- W + S

Warm-up steps and mode `original` replace C^(-1/2) by 1 / std_g. ULTRAEDIT is mode `original`
with alpha 1 and no warm-up.

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from config.schema import EditorConfig, FloorMode, StatisticsMode
from data.batches import StepBatches
from editor.base import StepReport, Stopwatch, write_shifts
from editor.cache import RowCache
from editor.capture import capture
from editor.ridge import Shift, solve_ridge, target_rows
from editor.sites import EditSite
from nets import Normalizer, RunningStatistics


class StableEdit:
    """The editor's state over a lifelong run: one RunningStatistics per weight shape."""

    def __init__(
        self,
        cfg: EditorConfig,
        model: PreTrainedModel,
        sites: Sequence[EditSite],
        cache: RowCache,
        solve_device: torch.device,
    ) -> None:
        self.cfg, self.model, self.sites, self.cache = cfg, model, list(sites), cache
        self.solve_device = solve_device
        covariance = cfg.RunningMeanStd_mode is StatisticsMode.stable
        self.statistics = {
            site.shape: RunningStatistics(*site.shape, covariance=covariance, device=solve_device) for site in sites
        }
        self.last_shifts: dict[str, Shift] = {}

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """Write one step's edits into the weights."""
        watch = Stopwatch()
        losses, tokens = self._capture_rows(batches, watch)
        with watch("whitening"):
            normalizers = {shape: self._normalizer(stats, warm_up) for shape, stats in self.statistics.items()}
        shifts = {}
        for index, site in enumerate(self.sites):
            with watch("ridge"):
                shifts[site.name] = self._shift(index, len(batches.edit), normalizers[site.shape])
        self.cache.clear()
        with watch("write"):
            records = write_shifts(self.sites, shifts, self.last_shifts)
        self.last_shifts = shifts
        rows = {str(shape): stats.n for shape, stats in self.statistics.items()}
        return StepReport(torch.stack(losses).mean().item(), tokens, records, rows, dict(watch.seconds))

    def _capture_rows(self, batches: StepBatches, watch: Stopwatch) -> tuple[list[Tensor], int]:
        losses, tokens = [], 0
        for index, batch in enumerate(batches.edit):
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
        return losses, tokens

    def _normalizer(self, statistics: RunningStatistics, warm_up: bool) -> Normalizer:
        if warm_up or not statistics.whitens:
            return Normalizer(statistics)
        relative = self.cfg.whitening_floor_mode is FloorMode.relative
        return Normalizer.whitening(statistics, self.cfg.whitening_floor, relative=relative)

    def _shift(self, site: int, batches: int, normalizer: Normalizer) -> Shift:
        rows = [self.cache.get(batch, site) for batch in range(batches)]
        keys_NK = torch.cat([row.keys_NK for row in rows])
        gradients_NV = torch.cat([row.gradients_NV for row in rows])
        chunks = zip(keys_NK.split(self.cfg.batch_size), gradients_NV.split(self.cfg.batch_size), strict=True)
        targets = [target_rows(normalizer.keys(k), normalizer.gradients(g), self.cfg.lr) for k, g in chunks]
        assert self.cfg.alpha is not None
        return solve_ridge(keys_NK, torch.cat(targets), self.cfg.alpha)
