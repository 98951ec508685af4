"""Keys, value gradients and statistics of any size, with the spectra measured on the embedded model's layer 26.

Shape suffixes: N rows, K = d_k, V = d_v, R directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nets import RunningStatistics

KEY_NORM = 25.0
GRADIENT_NORM = 0.012
SHARE_ABOVE_FLOOR = 0.06
FLOOR = 1e-6


def rows(count: int, size: int, norm: float, device: torch.device) -> Tensor:
    """Rows [N, size] of about that norm: few strong directions, variances like 1 / rank, a little noise."""
    rank = min(count, size)
    strengths_R = torch.arange(1, rank + 1, device=device).rsqrt()
    rows_NS = (torch.randn(count, rank, device=device) * strengths_R) @ torch.randn(rank, size, device=device)
    rows_NS /= rows_NS.norm(dim=1).mean() / norm
    return rows_NS.add_(torch.randn(count, size, device=device), alpha=0.05 * norm / size**0.5)


def statistics(d_k: int, d_v: int, device: torch.device) -> RunningStatistics:
    """Running statistics past their warm-up: 6 % of the eigenvalues above FLOOR, the others a tail below."""
    found = RunningStatistics(d_k, d_v, covariance=True, device=device)
    n, above = 4 * d_v, max(1, round(SHARE_ABOVE_FLOOR * d_v))
    values_R = torch.cat((torch.logspace(-3, -5.5, above), torch.logspace(-6.5, -9, d_v // 2))).to(device)
    scaled_RV = values_R.sqrt()[:, None] * torch.randn(len(values_R), d_v, device=device) / d_v**0.5
    covariance_VV = scaled_RV.T @ scaled_RV
    covariance_VV.diagonal().add_(1e-10)
    sums = {"mean": torch.zeros(d_k + d_v), "var": torch.full((d_k + d_v,), float(n))}
    found.load_state_dict({"n": torch.tensor([n]), **sums, "cov_value": covariance_VV * (n - d_v - 1)})
    return found
