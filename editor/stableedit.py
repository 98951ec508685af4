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

import torch

from config.schema import EditorConfig, FloorMode, StatisticsMode
from editor.base import Editor, Stopwatch, Workbench
from editor.ridge import Shift, solve_ridge, target_rows
from nets import Normalizer, RunningStatistics


class StableEdit(Editor):
    """Nothing is learned: the statistics alone shape the update."""

    def __init__(self, cfg: EditorConfig, bench: Workbench) -> None:
        super().__init__(cfg, bench, covariance=cfg.RunningMeanStd_mode is StatisticsMode.stable)

    def shifts(self, micro_batches: int, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """Normalize, make target rows, solve: one decomposition per shape, one solve per site."""
        with watch("whitening"):
            normalizers = {shape: self._normalizer(stats, warm_up) for shape, stats in self.statistics.items()}
        with watch("ridge"):
            return [self._shift(index, micro_batches, normalizers[site.shape]) for index, site in enumerate(self.sites)]

    def _normalizer(self, statistics: RunningStatistics, warm_up: bool) -> Normalizer:
        if warm_up or not statistics.whitens:
            return Normalizer(statistics)
        relative = self.cfg.whitening_floor_mode is FloorMode.relative
        return Normalizer.whitening(statistics, self.cfg.whitening_floor, relative=relative, retries=self.retries)

    def _shift(self, site: int, micro_batches: int, normalizer: Normalizer) -> Shift:
        assert self.cfg.alpha is not None
        rows = self.gather(site, micro_batches)
        chunks = rows.split(self.cfg.batch_size)
        targets = [
            target_rows(normalizer.keys(c.keys_NK), normalizer.gradients(c.gradients_NV), self.cfg.lr) for c in chunks
        ]
        return solve_ridge(rows.keys_NK, torch.cat(targets), self.cfg.alpha, self.retries)
