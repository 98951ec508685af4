"""AlphaEdit (Fang et al. 2025, "Null-Space Constrained Knowledge Editing"): change what text does not use.

    D = P (K_p^T K_p P + K^T K P + alpha I)^-1 K^T R      P = U U^T

U are the eigenvectors of text's E[k k^T] whose eigenvalue is below `threshold` times the mean one (the paper's bound
2e-2 is absolute, and of its models), K_p the keys of all earlier steps. With X = K U it is
D = U (X_p^T X_p + X^T X + alpha I)^-1 X^T R: recursive least squares inside the null space, and the system solved is
as large as that space. The text is the model's own, R are the target rows of editor=ultraedit (least_squares.py).

Shape suffixes: K = d_k, X directions that may change.
"""

from __future__ import annotations

import torch
from torch import Tensor

from config.check import ConfigError
from config.editors import AlphaEditConfig
from data.batches import StepBatches
from editor.least_squares import Kept
from editor.recursive_ridge import RecursiveRidge
from editor.registry import register


@register("alphaedit", config=AlphaEditConfig)
class AlphaEdit(RecursiveRidge):
    """`kept` has U and X_p^T X_p."""

    cfg: AlphaEditConfig

    def start(self, batches: StepBatches) -> Kept:
        """Let the model write, and find what its text does not use.

        Raises:
            ConfigError: that is nothing, at some site.
        """
        bases = [null_space(moment_KK, self.cfg.threshold) for moment_KK in self.text_moments(batches)]
        kept = self.sums([basis_KX.shape[1] for basis_KX in bases])
        for site, basis_KX in zip(self.sites, bases, strict=True):
            if basis_KX.shape[1] == 0:
                raise ConfigError(
                    f"editor.threshold={self.cfg.threshold}: every eigenvalue of {site.name}'s text keys is above this "
                    "share of the mean; choose a larger one"
                )
            kept[f"basis/{site.name}"] = basis_KX
        return kept


def null_space(moment_KK: Tensor, threshold: float) -> Tensor:
    """Eigenvectors [K, X] whose eigenvalue is below `threshold` times the mean eigenvalue."""
    values_K, vectors_KK = torch.linalg.eigh(moment_KK)
    return vectors_KK[:, values_K < threshold * values_K.mean()].contiguous()
