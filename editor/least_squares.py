"""What memit, alphaedit and recursive_ridge share: for each site a least-squares system of up to d_k unknowns.

Of a step's keys K, X = K U are their parts in the directions that may change, U an orthonormal basis of those:

    D = U (S + X^T X + ridge I)^-1 X^T V      S: by what else a change is felt, as a sum of x x^T

V are the target rows of editor=ultraedit (docs/design.md, 2.5 and 2.8): values from one gradient, at every site. The
papers find values by an optimization of their own, at one layer, and spread what is missing over the sites.
Gradients are there at every site: each site's V is its own part already, so it is not divided by the sites that are
left, and what all sites together write is scaled by editor.lr.

Shape suffixes: N rows, K = d_k, V = d_v, X directions that may change.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from config.choices import PreheatMode, StatisticsMode
from data.batches import StepBatches
from editor.base import Editor, StepReport, Stopwatch
from editor.metric import outer
from editor.ridge import Shift, solve_shifted, target_rows
from editor.text import beginnings, first_tokens, moments_of, prompts_of, written
from nets import Normalizer

Kept = dict[str, Tensor]
"""S [X, X] of every site as sum/SITE and, where not every direction may change, U [K, X] as basis/SITE; float64."""
LENGTH, FEWEST = 32, 16
"""Tokens that a text goes on for, and the fewest texts of a kind."""


class LeastSquares(Editor):
    """What is kept is never changed in place: a step that fails puts back what was there."""

    fixed: ClassVar[dict[str, Enum]] = {
        "RunningMeanStd_mode": StatisticsMode.original, "preheat_mode": PreheatMode.none
    }  # fmt: skip
    otherwise = "use editor=stableedit"
    grows = True
    """Whether S takes in the keys of every step."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """As Editor; `seed` draws the text."""
        super().__init__(*args, **more)
        self.kept: Kept = {}

    @abstractmethod
    def start(self, batches: StepBatches) -> Kept:
        """What is kept before the first step, whose edits these are; the model is as it was loaded."""

    def ridge(self) -> float:
        """What is added to every eigenvalue of the system."""
        return 0.0

    def step(self, batches: StepBatches, *, warm_up: bool) -> StepReport:
        """As Editor.step; the first makes what is kept."""
        before, watch = self.kept, Stopwatch(self.model.device)
        try:
            with watch("start"):
                self.kept = before or self.start(batches)
            report = super().step(batches, warm_up=warm_up)
        except BaseException:
            self.kept = before
            raise
        return replace(report, seconds={**watch.seconds, **report.seconds})

    def shifts(self, watch: Stopwatch, *, warm_up: bool) -> list[Shift]:
        """One system for each site, in float64."""
        with watch("ridge"):
            normalizers = {shape: Normalizer(statistics) for shape, statistics in self.statistics.items()}
            kept, found = dict(self.kept), []
            for index, site in enumerate(self.sites):
                rows, normalizer = self.cache.gather(index), normalizers[site.shape]
                normalized = normalizer.keys(rows.keys_NK), normalizer.gradients(rows.gradients_NV)
                sum_XX, shift = self._solve(site.name, rows.keys_NK.double(), target_rows(*normalized, self.cfg.lr))
                found.append(shift)
                if self.grows:
                    kept[f"sum/{site.name}"] = sum_XX
            self.kept = kept
            return found

    def _solve(self, name: str, keys_NK: Tensor, targets_NV: Tensor) -> tuple[Tensor, Shift]:
        """S + X^T X of a site, and its shift: thin where there are fewer rows than directions."""
        basis_KX = self.kept.get(f"basis/{name}")
        rows_NX = keys_NK if basis_KX is None else keys_NK @ basis_KX
        sum_XX = self.kept[f"sum/{name}"] + outer(rows_NX)
        thin = len(rows_NX) < len(sum_XX)
        right = rows_NX.T if thin else rows_NX.T @ targets_NV.double()
        side = solve_shifted(sum_XX, self.ridge(), right, self.retries)
        side = (side if basis_KX is None else basis_KX @ side).to(targets_NV.dtype)
        return sum_XX, Shift(side.T, targets_NV) if thin else Shift(None, side)

    def text_moments(self, batches: StepBatches) -> list[Tensor]:
        """E[k k^T] of every site, [K, K] float64, over text that the model writes itself.

        Half of it is running text from single tokens of the edits, half goes on from the edits' beginnings. There are
        at least 2 d_k tokens, so that no direction is empty for want of rows.
        """
        draw, prompts = torch.Generator().manual_seed(self.seed), prompts_of(batches.edit)
        count = max(FEWEST, math.ceil(max(site.d_k for site in self.sites) / LENGTH))
        kinds = [kind(prompts, count, draw) for kind in (first_tokens, beginnings)]
        texts = [written(self.model, seeds, LENGTH, draw) for seeds in kinds]
        found = [moments_of(self.model, self.sites, text, self.solve_device) for text in texts]
        pairs = zip(*([key_KK / kind.rows for key_KK in kind.keys] for kind in found), strict=True)
        return [(one_KK + other_KK) / 2 for one_KK, other_KK in pairs]

    def sums(self, sizes: list[int]) -> Kept:
        """S = 0 of every site, [X, X]."""
        pairs = zip(self.sites, sizes, strict=True)
        zero = torch.zeros((), dtype=torch.float64, device=self.solve_device)
        return {f"sum/{site.name}": zero.new_zeros(size, size) for site, size in pairs}

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, what is kept too."""
        return super().state_tensors() | self.kept

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what state_tensors gave."""
        super().load_state_tensors(tensors)
        self.kept = {name: value for name, value in tensors.items() if name.startswith(("sum/", "basis/"))}
