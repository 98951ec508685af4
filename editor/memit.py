"""MEMIT's update (Meng et al. 2023, "Mass-Editing Memory in a Transformer"): least squares with text's keys.

    D = (text_weight C + K^T K)^-1 K^T R      C = E_text[k k^T], uncentered

C comes from text that the model writes itself (least_squares.py) in the place of 100,000 samples of Wikipedia; as that
is less text, 1e-3 of C's mean eigenvalue is added to each. R are the target rows of editor=ultraedit, not values found
by an inner optimization, and not divided by the sites that are left. As in the paper, earlier edits' keys are not kept.
"""

from __future__ import annotations

from config.editors import MemitConfig
from data.batches import StepBatches
from editor.least_squares import Kept, LeastSquares
from editor.metric import floored
from editor.registry import register


@register("memit", config=MemitConfig)
class Memit(LeastSquares):
    """`kept` has text_weight C."""

    cfg: MemitConfig
    grows = False

    def start(self, batches: StepBatches) -> Kept:
        """Let the model write, and take the keys."""
        moments = zip(self.sites, self.text_moments(batches), strict=True)
        return {f"sum/{site.name}": self.cfg.text_weight * floored(moment_KK) for site, moment_KK in moments}
