"""Recursive least squares: the ridge of a step holds the keys of all earlier ones.

    S_t = S_(t-1) + K_t^T K_t      S_0 = alpha I      D_t = S_t^-1 K_t^T V_t

As gradients are taken at the weights that the steps before left, V_t is what is still missing, and W_t is the ridge
solution for all edits so far. After SimIE ("Towards Lifelong Model Editing via Simulating Ideal Editor", 2025) and
RLSEdit; V_t here are the target rows of editor=ultraedit (least_squares.py).
"""

from __future__ import annotations

from config.editors import RecursiveRidgeConfig
from data.batches import StepBatches
from editor.least_squares import Kept, LeastSquares
from editor.registry import register


@register("recursive_ridge", config=RecursiveRidgeConfig)
class RecursiveRidge(LeastSquares):
    """`kept` has S_t - alpha I, so that alpha may change when a run goes on."""

    cfg: RecursiveRidgeConfig

    def ridge(self) -> float:
        """alpha."""
        return self.cfg.alpha

    def start(self, batches: StepBatches) -> Kept:
        """Nothing was edited yet."""
        return self.sums([site.d_k for site in self.sites])
