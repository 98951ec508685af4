"""MALMEN (Tan et al., ICLR 2024): the network proposes value differences, a least-squares solve joins them.

    D = -eta (k . k~) g~ per row        S = (K^T K + e^lambda I)^(-1) K^T D

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from config.schema import LearnedConfig
from editor.capture import Rows
from editor.learned import LearnedEditor, Proposal
from editor.registry import register
from editor.ridge import Shift, solve_gradient, solve_ridge
from nets import EditNetwork, Normalizer


@register("malmen", config=LearnedConfig)
class Malmen(LearnedEditor):
    """One update of the network per training step."""

    def propose(self, network: EditNetwork, place: int, rows: Rows, normalizer: Normalizer) -> list[Proposal]:
        """D, chunk by chunk."""
        return [(self._differences(network, place, chunk, normalizer),) for chunk in rows.split(self.cfg.batch_size)]

    def _differences(self, network: EditNetwork, place: int, rows: Rows, normalizer: Normalizer) -> Tensor:
        keys_NK, gradients_NV = self.pseudo_rows(network, place, rows, normalizer)
        alignment_N1 = (rows.keys_NK * keys_NK).sum(1, keepdim=True)
        return -network.lr.weight[place] * alignment_N1 * gradients_NV

    def join(self, network: EditNetwork, place: int, rows: Rows, proposals: list[Proposal]) -> Shift:
        """Solve for the shift of one site."""
        targets_NV = torch.cat([differences for (differences,) in proposals])
        return solve_ridge(rows.keys_NK, targets_NV, network.lamda.weight[place].double().exp(), self.retries)

    def backward(
        self,
        network: EditNetwork,
        place: int,
        rows: Rows,
        proposals: list[Proposal],
        shift: Shift,
        gradient_KV: Tensor,
    ) -> None:
        """dD = K M and dlambda = -e^lambda <M, S> with M = (K^T K + e^lambda I)^(-1) G, then the network."""
        ridge = network.lamda.weight[place].detach().double().exp()
        targets_gradient_NV, product = solve_gradient(rows.keys_NK, gradient_KV, ridge, shift, self.retries)
        (network.lamda.weight[place] * (-ridge * product).float()).sum().backward()
        blocks = zip(proposals, targets_gradient_NV.split(self.cfg.batch_size), strict=True)
        for (differences_NV,), gradient_NV in blocks:
            (differences_NV * gradient_NV).sum().backward()
