"""StableEdit (arXiv 2605.11836) and, with other settings, ULTRAEDIT.

One step, with k and g the keys and value gradients of its answer tokens:

    statistics over all rows so far, pooled over the sites of one weight shape
    k^ = (k - mean_k) / std_k        g^ = (g - mean_g) C^(-1/2)
    V  = -lr |k^|^2 g^               S = (K^T K + alpha I)^(-1) K^T V        W <- W + S

Warm-up steps and mode `original` replace C^(-1/2) by 1 / std_g. ULTRAEDIT is mode `original`
with alpha 1 and no warm-up. Mode `none` takes k and g raw: editing without lifelong normalization.

Not in the paper, off by default: `key_ridge: s` puts (1 - s) I + s E, with E the second moment of all raw keys so
far (scaled to a mean eigenvalue of 1), in the place of I, so that S stays away from directions that keys share.

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
from editor.ridge import Shift, solve_ridge, solve_weighted, target_rows
from editor.subspace import searches, subspace_root
from nets import Normalizer, RunningStatistics

Tools = dict[Shape, tuple[Normalizer | None, Tensor | None]]


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

    def covariances(self) -> tuple[bool, bool]:
        """The value covariance is whitened with, the key covariance weighs the ridge."""
        return self.cfg.RunningMeanStd_mode is StatisticsMode.stable, self.cfg.key_ridge > 0

    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """Normalize, make target rows, solve: one decomposition per shape, one solve per site."""
        with watch("whitening"):
            normalizers = {shape: self._normalizer(shape, warm_up) for shape in self.statistics}
        with watch("ridge"):
            share = self.cfg.key_ridge  # without one the ridge is the paper's identity, which needs no factor
            factors = {shape: found.ridge_factor(share) if share else None for shape, found in self.statistics.items()}
            tools = {shape: (normalizers[shape], factors[shape]) for shape in self.statistics}
            whole, unseen = range(len(self.sites)), list[Tensor]()
            shifts = [self._shift(site, tools, unseen) for site in whole]
            if torch.stack(unseen).any():  # the one look of the step at whether a factorization failed
                shifts = [self._shift(site, tools, None) for site in whole]
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

    def _shift(self, site: int, tools: Tools, unseen: list[Tensor] | None) -> Shift:
        normalizer, factor_KK = tools[self.sites[site].shape]
        rows = self.cache.gather(site)
        chunks = [(chunk.keys_NK, chunk.gradients_NV) for chunk in rows.split(self.cfg.batch_size)]
        if normalizer is not None:
            chunks = [
                (normalizer.keys(keys_NK), normalizer.gradients(gradients_NV)) for keys_NK, gradients_NV in chunks
            ]
        targets_NV = torch.cat([target_rows(*chunk, self.cfg.lr) for chunk in chunks])
        if factor_KK is not None:
            return solve_weighted(rows.keys_NK, targets_NV, self.cfg.alpha, factor_KK, self.retries, unseen)
        return solve_ridge(rows.keys_NK, targets_NV, self.cfg.alpha, self.retries, unseen)

    def spectrum(self) -> dict[str, dict[str, Any]]:
        """Eigenvalues of the value covariance by weight shape, largest first, where there are rows enough to whiten."""
        whitened = {shape: found for shape, found in self.statistics.items() if found.whitens}
        return {str(shape): describe_spectrum(found, self.cfg) for shape, found in whitened.items()}


@register("stableedit_plus", config=RidgeConfig)
class StableEditPlus(StableEdit):
    """StableEdit with key_ridge 0.99, alpha 10 and no warm-up (config/editor/stableedit_plus.yaml).

    The paper's ridge alpha I holds back a direction that all keys share no more than one that a single fact
    uses, so every batch also moves what it was not asked to move. Weighted by the second moment of all keys so
    far, the ridge keeps shifts out of shared directions (MEMIT does so with keys of ordinary text, collected
    beforehand). What it gains after 10,000 edits: docs/RESULTS.md, parts 7 and 9 to 11.
    """


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
