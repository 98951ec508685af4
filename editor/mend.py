"""MEND (Mitchell et al., ICLR 2022): the network rewrites keys and value gradients, their outer products add up.

    S = sum over rows of -eta k~^T g~

Shape suffixes: N rows, K = d_k, V = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from config.editors import LearnedConfig
from editor.learned import AtSite, LearnedEditor, Proposal
from editor.registry import register
from editor.ridge import Shift


@register("mend", config=LearnedConfig)
class Mend(LearnedEditor):
    """One update of the network per training step."""

    def propose(self, at: AtSite) -> list[Proposal]:
        """k~ and g~, chunk by chunk."""
        return [*at.pseudo_rows(self.cfg.batch_size)]

    def join(self, at: AtSite, proposals: list[Proposal]) -> Shift:
        """The shift of one site as the product of its rewritten rows."""
        keys_NK, gradients_NV = (torch.cat(parts) for parts in zip(*proposals, strict=True))
        return Shift(keys_NK, -at.network.lr.weight[at.place] * gradients_NV)

    def backward(self, at: AtSite, proposals: list[Proposal], shift: Shift, gradient_KV: Tensor) -> None:
        """The gradient of <G, S>, chunk by chunk: S is a sum over rows."""
        for keys_NK, gradients_NV in proposals:
            (-at.network.lr.weight[at.place] * ((keys_NK @ gradient_KV) * gradients_NV).sum()).backward()
