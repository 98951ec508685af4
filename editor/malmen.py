"""MALMEN (Tan et al., ICLR 2024): the network proposes value differences, a least-squares solve joins them.

    D = -eta (k . k~) g~ per row        S = (K^T K + e^lambda I)^(-1) K^T D

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from config.editors import LearnedConfig
from editor.learned import AtSite, LearnedEditor, Proposal
from editor.registry import register
from editor.ridge import Shift, solve_gradient, solve_ridge


@register("malmen", config=LearnedConfig)
class Malmen(LearnedEditor):
    """One update of the network per training step."""

    def propose(self, at: AtSite) -> list[Proposal]:
        """D, chunk by chunk."""
        size, step = self.cfg.batch_size, -at.network.lr.weight[at.place]
        blocks = zip(at.rows.split(size), at.pseudo_rows(size), strict=True)
        return [(step * (rows.keys_NK * k_NK).sum(1, keepdim=True) * g_NV,) for rows, (k_NK, g_NV) in blocks]

    def join(self, at: AtSite, proposals: list[Proposal]) -> Shift:
        """Solve for the shift of one site."""
        targets_NV = torch.cat([differences_NV for (differences_NV,) in proposals])
        ridge = at.network.lamda.weight[at.place].double().exp()
        return solve_ridge(at.rows.keys_NK, targets_NV, ridge, self.retries)

    def backward(self, at: AtSite, proposals: list[Proposal], shift: Shift, gradient_KV: Tensor) -> None:
        """dD = K M and dlambda = -e^lambda <M, S> with M = (K^T K + e^lambda I)^(-1) G, then the network."""
        lamda = at.network.lamda.weight[at.place]
        ridge = lamda.detach().double().exp()
        targets_gradient_NV, product = solve_gradient(at.rows.keys_NK, gradient_KV, ridge, shift, self.retries)
        (lamda * (-ridge * product).float()).sum().backward()
        gradients = targets_gradient_NV.split(self.cfg.batch_size)
        for (differences_NV,), gradient_NV in zip(proposals, gradients, strict=True):
            (differences_NV * gradient_NV).sum().backward()
