"""Forward passes that give what editing needs: answer logits, keys and value gradients.

Shape suffixes: B sequences, T positions, M answer positions, N captured rows, K = d_k, V = d_v, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from config.schema import TokenRows
from data.batches import IGNORED, Batch
from editor.sites import EditSite


@dataclass(frozen=True, slots=True)
class Rows:
    """Keys and value gradients of one site for one micro-batch, float32."""

    keys_NK: Tensor
    gradients_NV: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same rows on another device."""
        return Rows(self.keys_NK.to(device), self.gradients_NV.to(device))

    def is_finite(self) -> Tensor:
        """Whether keys and gradients are all finite, a 0-dim bool tensor."""
        return self.keys_NK.isfinite().all() & self.gradients_NV.isfinite().all()

    def split(self, size: int) -> list[Rows]:
        """Consecutive blocks of at most `size` rows."""
        return [Rows(*pair) for pair in zip(self.keys_NK.split(size), self.gradients_NV.split(size), strict=True)]


@dataclass(frozen=True, slots=True)
class Captured:
    """What one micro-batch's forward and backward pass gave; rows in the order of the sites."""

    loss: Tensor
    tokens: int
    rows: list[Rows]


@contextmanager
def _head_sees_only(model: PreTrainedModel, mask_BT: Tensor) -> Iterator[None]:
    """Let the output head run on the masked positions alone, as one sequence of M."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][mask_BT.to(inputs[0].device)].unsqueeze(0), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def answer_logits(model: PreTrainedModel, batch: Batch, *, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Logits where an answer token is predicted, and those tokens.

    The vocabulary is only ever computed at these positions, unless `whole`: the head then sees
    every position, for runs in which the head itself is a site.

    Returns:
        logits_MW float32, labels_M, row by row in the order of the batch.
    """
    mask_BT = batch.labels_BT != IGNORED
    with nullcontext() if whole else _head_sees_only(model, mask_BT):
        output = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_BT, use_cache=False)
    logits = output.logits
    logits_MW = logits[mask_BT.to(logits.device)] if whole else logits.squeeze(0)
    return logits_MW.float(), batch.labels_BT[mask_BT].to(logits.device)


def _edits_head(model: PreTrainedModel, sites: Sequence[EditSite]) -> bool:
    return any(site.module is model.get_output_embeddings() for site in sites)


@contextmanager
def _watch(sites: Sequence[EditSite]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Collect every site's input and output; the first site's output starts the graph."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook_for(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_(True)
            seen[name] = (inputs[0].detach(), output)
            return output

        return hook

    handles = [site.module.register_forward_hook(hook_for(site.name)) for site in sites]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def weight_gradients(
    model: PreTrainedModel, sites: Sequence[EditSite], batch: Batch, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A loss of (logits_MW, labels_M) and d(loss)/dW of every site, [d_k, d_v] float32.

    Made of keys and output gradients, so that no parameter has to ask for gradients.
    """
    with torch.enable_grad(), _watch(sites) as seen:
        loss = loss_of(*answer_logits(model, batch, whole=_edits_head(model, sites)))
        outputs = [seen[site.name][1] for site in sites]
        gradients = torch.autograd.grad(loss, outputs)
    found = []
    for site, gradient_BTV in zip(sites, gradients, strict=True):
        keys_NK = seen[site.name][0].flatten(0, 1).float()
        found.append(keys_NK.T @ gradient_BTV.flatten(0, 1).float())
    return loss.detach(), found


def capture(model: PreTrainedModel, sites: Sequence[EditSite], batch: Batch, token: TokenRows) -> Captured:
    """Keys and value gradients of the batch's mean answer loss (DESIGN section 2.2).

    Only gradients of site outputs are computed: the model's parameters must not require grad,
    and the backward pass ends at the lowest site. Rows stand sequence by sequence.
    """
    with torch.enable_grad(), _watch(sites) as seen:
        logits_MW, labels_M = answer_logits(model, batch, whole=_edits_head(model, sites))
        loss = cross_entropy(logits_MW, labels_M)
        outputs = [seen[site.name][1] for site in sites]
        gradients = torch.autograd.grad(loss, outputs)
    mask_BT = batch.labels_BT != IGNORED if token is TokenRows.ans else batch.attention_BT == 1
    rows = []
    for site, gradient_BTV in zip(sites, gradients, strict=True):
        keys_BTK = seen[site.name][0]
        mask = mask_BT.to(keys_BTK.device)
        rows.append(Rows(keys_BTK[mask].float(), gradient_BTV[mask].float()))
    return Captured(loss.detach(), len(labels_M), rows)
