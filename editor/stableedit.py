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

from collections.abc import Mapping

import torch
from torch import Tensor

from config.schema import EditorConfig, FloorMode, Shrinkage, StatisticsMode
from editor.base import Editor, Stopwatch, Workbench, below
from editor.ridge import Shift, solve_ridge, target_rows
from nets import InverseRoot, Normalizer, RawRows

Normalizers = dict[tuple[int, int], Normalizer | RawRows]


class StableEdit(Editor):
    """Nothing is learned: the statistics alone shape the update."""

    def __init__(self, cfg: EditorConfig, bench: Workbench) -> None:
        super().__init__(cfg, bench, covariance=cfg.RunningMeanStd_mode is StatisticsMode.stable)
        self.roots: dict[tuple[int, int], InverseRoot] = {}
        self.root_age: dict[tuple[int, int], int] = {}

    def shifts(self, micro_batches: int, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """Normalize, make target rows, solve: one decomposition per shape, one solve per site."""
        with watch("whitening"):
            normalizers = {shape: self._normalizer(shape, warm_up) for shape in self.statistics}
        with watch("ridge"):
            whole, unseen = range(len(self.sites)), []
            shifts = [self._shift(site, micro_batches, normalizers, unseen) for site in whole]
            if torch.stack(unseen).any():  # the one look of the step at whether a factorization failed
                shifts = [self._shift(site, micro_batches, normalizers, None) for site in whole]
            return shifts

    def _normalizer(self, shape: tuple[int, int], warm_up: bool) -> Normalizer | RawRows:
        statistics = self.statistics[shape]
        if self.cfg.RunningMeanStd_mode is StatisticsMode.none:
            return RawRows()
        if warm_up or not statistics.whitens:
            return Normalizer(statistics)
        age = self.root_age.get(shape, 0)
        if age % self.cfg.whitening_every == 0:
            relative = self.cfg.whitening_floor_mode is FloorMode.relative
            shrink = self.cfg.shrinkage is Shrinkage.oas
            floor = self.cfg.whitening_floor
            root = statistics.inverse_root(floor, relative=relative, shrink=shrink, retries=self.retries)
            if self.cfg.whitening_every == 1:
                return Normalizer(statistics, root)
            self.roots[shape] = root
        self.root_age[shape] = age + 1
        return Normalizer(statistics, self.roots[shape])

    def state_tensors(self) -> dict[str, Tensor]:
        """Also the decompositions that later steps will use again."""
        found = super().state_tensors()
        for shape, root in self.roots.items():
            found |= {f"root/{shape}/{name}": value for name, value in root.state_dict().items()}
            found[f"root/{shape}/age"] = torch.tensor([self.root_age[shape]])
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        for shape in self.statistics:
            state = below(tensors, f"root/{shape}/")
            if state:
                self.root_age[shape] = int(state.pop("age").item())
                self.roots[shape] = InverseRoot(**state)

    def _shift(self, site: int, micro_batches: int, normalizers: Normalizers, unseen: list[Tensor] | None) -> Shift:
        assert self.cfg.alpha is not None
        normalizer = normalizers[self.sites[site].shape]
        rows = self.gather(site, micro_batches)
        chunks = rows.split(self.cfg.batch_size)
        targets = [
            target_rows(normalizer.keys(c.keys_NK), normalizer.gradients(c.gradients_NV), self.cfg.lr) for c in chunks
        ]
        return solve_ridge(rows.keys_NK, torch.cat(targets), self.cfg.alpha, self.retries, unseen)
