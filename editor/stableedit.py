"""StableEdit (arXiv 2605.11836) and, with other settings, ULTRAEDIT.

One step, with k and g the keys and value gradients of its answer tokens:

    statistics over all rows so far, pooled over the sites of one weight shape
    k^ = (k - mean_k) / std_k        g^ = (g - mean_g) C^(-1/2)
    V  = -lr |k^|^2 g^               S = (K^T K + alpha I)^(-1) K^T V        W <- W + S

Warm-up steps and mode `original` replace C^(-1/2) by 1 / std_g. ULTRAEDIT is mode `original`
with alpha 1 and no warm-up. Mode `none` takes k and g raw: editing without lifelong normalization.

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from config.check import ConfigError
from config.choices import FloorMode, PreheatMode, StatisticsMode
from config.editors import AnyEditorConfig, RidgeConfig
from editor.base import Editor, Shape, Stopwatch
from editor.registry import register
from editor.ridge import Shift, solve_ridge, target_rows
from editor.subspace import searches, subspace_root
from nets import Normalizer, RunningStatistics


@register("stableedit", config=RidgeConfig)
class StableEdit(Editor):
    """Nothing is learned: the statistics alone shape the update."""

    cfg: RidgeConfig

    @classmethod
    def check(cls, cfg: AnyEditorConfig) -> None:
        """Also refuse, by a ConfigError, a floor that is no share of the largest eigenvalue."""
        super().check(cfg)
        assert isinstance(cfg, RidgeConfig)
        if cfg.whitening_floor_mode is FloorMode.relative and cfg.whitening_floor >= 1:
            raise ConfigError(
                f"editor.whitening_floor={cfg.whitening_floor}: a share of the largest eigenvalue, below 1"
            )

    def covariance(self) -> bool:
        """Value gradients are whitened with it."""
        return self.cfg.RunningMeanStd_mode is StatisticsMode.stable

    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """Normalize, make target rows, solve: one decomposition per shape, one solve per site."""
        with watch("whitening"):
            normalizers = {shape: self._normalizer(shape, warm_up) for shape in self.statistics}
        with watch("ridge"):
            of_sites, unseen = [normalizers[site.shape] for site in self.sites], list[Tensor]()
            shifts = [self._shift(site, of_site, unseen) for site, of_site in enumerate(of_sites)]
            if torch.stack(unseen).any():  # the one look of the step at whether a factorization failed
                shifts = [self._shift(site, of_site, None) for site, of_site in enumerate(of_sites)]
            return shifts

    def _normalizer(self, shape: Shape, warm_up: bool) -> Normalizer | None:
        """None leaves rows as they are."""
        statistics, cfg = self.statistics[shape], self.cfg
        if cfg.RunningMeanStd_mode is StatisticsMode.none:
            return None
        if warm_up or not statistics.whitens:
            return Normalizer(statistics)
        floor, relative = cfg.whitening_floor, cfg.whitening_floor_mode is FloorMode.relative
        if not searches(cfg.whitening_solver, statistics.d_v):
            return Normalizer(statistics, statistics.inverse_root(floor, relative=relative, retries=self.retries))
        root, statistics.basis_VC = subspace_root(
            statistics.covariance(), floor, relative=relative,
            basis_VC=statistics.basis_VC, rows=statistics.added, retries=self.retries,
        )  # fmt: skip
        return Normalizer(statistics, root)

    def _shift(self, site: int, normalizer: Normalizer | None, unseen: list[Tensor] | None) -> Shift:
        rows = self.cache.gather(site)
        chunks = [(chunk.keys_NK, chunk.gradients_NV) for chunk in rows.split(self.cfg.batch_size)]
        if normalizer is not None:
            chunks = [
                (normalizer.keys(keys_NK), normalizer.gradients(gradients_NV)) for keys_NK, gradients_NV in chunks
            ]
        targets_NV = torch.cat([target_rows(*chunk, self.cfg.lr) for chunk in chunks])
        return solve_ridge(rows.keys_NK, targets_NV, self.cfg.alpha, self.retries, unseen)

    def spectrum(self) -> dict[str, dict[str, Any]]:
        """Eigenvalues of the value covariance by weight shape, largest first, where there are rows enough to whiten."""
        whitened = {shape: found for shape, found in self.statistics.items() if found.whitens}
        return {str(shape): describe_spectrum(found, self.cfg) for shape, found in whitened.items()}


@register("ultraedit", config=RidgeConfig)
class UltraEdit(StableEdit):
    """Per-coordinate normalization and no warm-up: what makes it ULTRAEDIT may not be changed."""

    fixed: ClassVar[dict[str, Enum]] = {
        "RunningMeanStd_mode": StatisticsMode.original, "preheat_mode": PreheatMode.none
    }  # fmt: skip
    otherwise = "use editor=stableedit"


def describe_spectrum(statistics: RunningStatistics, cfg: RidgeConfig, most: int = 512) -> dict[str, Any]:
    """At most `most` eigenvalues (evenly spaced ranks), the floor they are raised to, and how many lie below it."""
    assert statistics.scatter_VV is not None
    covariance_VV = statistics.scatter_VV / (statistics.n - statistics.d_v - 1)
    values_V = torch.linalg.eigvalsh(covariance_VV).flip(0)
    floor = cfg.whitening_floor * (values_V[0].item() if cfg.whitening_floor_mode is FloorMode.relative else 1.0)
    ranks = torch.linspace(0, len(values_V) - 1, min(most, len(values_V))).round().long()
    return {
        "eigenvalues": values_V[ranks.to(values_V.device)].tolist(),
        "ranks": (ranks + 1).tolist(),
        "floor": floor,
        "below": int((values_V < floor).sum()),
        "size": len(values_V),
        "rows": statistics.n,
    }
