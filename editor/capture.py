"""Forward passes that give what editing needs: answer logits, keys and value gradients.

Shape suffixes: B sequences, T positions, M answer positions, N captured rows, K = d_k, V = d_v, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from config.choices import TokenRows
from data.batches import IGNORED, Batch, join, to_device
from editor.sites import EditSite
from linear import in_float32

LossOf = Callable[[Tensor, Tensor], Tensor]
"""A loss of answer logits [M, W] and labels [M]."""
Relabel = Callable[[Tensor], Tensor]
"""Tokens [M] in the place of a batch's answer tokens, made from the logits [M, W] that predict them."""
Inputs = Callable[[PreTrainedModel, Batch], AbstractContextManager[dict[str, Tensor]]]
"""What to call a model with for a batch, inside the block: its tokens, or states from further up (frozen.py)."""


@contextmanager
def tokens_of(model: PreTrainedModel, batch: Batch) -> Iterator[dict[str, Tensor]]:
    """The batch's tokens, on the model's device."""
    yield {"input_ids": to_device(batch.input_ids_BT, model.device)}


@dataclass(frozen=True, slots=True)
class Rows:
    """Keys and value gradients of one site for one micro-batch, float32."""

    keys_NK: Tensor
    gradients_NV: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.keys_NK.nbytes + self.gradients_NV.nbytes

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


@dataclass(frozen=True, slots=True)
class Asked:
    """Answer tokens one by one: cross-entropy, lead of the logit over the best other, and their rows by site."""

    losses_N: Tensor
    margins_N: Tensor
    rows: list[Rows]


@contextmanager
def _head_at(model: PreTrainedModel, positions_M: Tensor) -> Iterator[None]:
    """Let the output head run in float32 on some positions alone (of all B x T), as one sequence of M."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden_BTD = inputs[0]
        return (at(hidden_BTD, positions_M).unsqueeze(0), *inputs[1:])

    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(select)
    try:
        with in_float32(head):
            yield
    finally:
        handle.remove()


def positions(mask_BT: Tensor) -> Tensor:
    """Where the mask is true, counted through all B x T positions; on the CPU this makes no device wait."""
    return mask_BT.flatten().nonzero().squeeze(1)


def at(tensor_BTD: Tensor, positions_M: Tensor) -> Tensor:
    """The vectors at some of all B x T positions, [M, D]."""
    return tensor_BTD.flatten(0, 1).index_select(0, to_device(positions_M, tensor_BTD.device))


def answer_logits(
    model: PreTrainedModel, batch: Batch, inputs: Inputs = tokens_of, *, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits where an answer token is predicted, and those tokens.

    The vocabulary is only ever computed at these positions, in float32 whatever the model's precision, unless
    `whole`: the head then sees every position as the model has it, for runs in which the head itself is a site. The
    batch is best left on the CPU: what is looked up in it then makes no device wait. No attention mask is given:
    padding stands on the right, where a causal model never looks.

    Returns:
        logits_MW float32, labels_M, row by row in the order of the batch.
    """
    mask_BT = batch.labels_BT != IGNORED
    positions_M = positions(mask_BT)
    with nullcontext() if whole else _head_at(model, positions_M), inputs(model, batch) as given:
        logits = model(**given, use_cache=False).logits
    logits_MW = at(logits, positions_M) if whole else logits.squeeze(0)
    return logits_MW.float(), to_device(batch.labels_BT[mask_BT], logits.device)


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
    model: PreTrainedModel, sites: Sequence[EditSite], batch: Batch, loss_of: LossOf, inputs: Inputs = tokens_of
) -> tuple[Tensor, list[Tensor]]:
    """A loss of (logits_MW, labels_M) and d(loss)/dW of every site, [d_k, d_v] float32.

    Made of keys and output gradients, so that no parameter has to ask for gradients.
    """
    with torch.enable_grad(), _watch(sites) as seen:
        loss = loss_of(*answer_logits(model, batch, inputs, whole=_edits_head(model, sites)))
        outputs = [seen[site.name][1] for site in sites]
        gradients = torch.autograd.grad(loss, outputs)
    found = []
    for site, gradient_BTV in zip(sites, gradients, strict=True):
        keys_NK = seen[site.name][0].flatten(0, 1).float()
        found.append(keys_NK.T @ gradient_BTV.flatten(0, 1).float())
    return loss.detach(), found


def capture_together(
    model: PreTrainedModel,
    sites: Sequence[EditSite],
    batches: Sequence[Batch],
    token: TokenRows,
    inputs: Inputs = tokens_of,
) -> list[Captured]:
    """Keys and value gradients of each batch's mean answer loss (docs/design.md, 2.2), in one forward and backward.

    No sequence sees another: the rows are those of separate passes up to the rounding of larger products.
    Only gradients of site outputs are computed: the model's parameters must not require grad, and the
    backward pass ends at the lowest site. Rows stand sequence by sequence.
    """
    batch = join(batches) if len(batches) > 1 else batches[0]
    tokens = [int((part.labels_BT != IGNORED).sum()) for part in batches]
    with torch.enable_grad(), _watch(sites) as seen:
        logits_MW, labels_M = answer_logits(model, batch, inputs, whole=_edits_head(model, sites))
        pairs = zip(logits_MW.split(tokens), labels_M.split(tokens), strict=True)
        losses = torch.stack([cross_entropy(*pair) for pair in pairs])
        outputs = [seen[site.name][1] for site in sites]
        gradients = torch.autograd.grad(losses.sum(), outputs)
    masks = [part.labels_BT != IGNORED if token is TokenRows.ans else part.attention_BT == 1 for part in batches]
    mask_BT = batch.labels_BT != IGNORED if token is TokenRows.ans else batch.attention_BT == 1
    positions_N, counts = positions(mask_BT), [int(mask.sum()) for mask in masks]
    rows: list[list[Rows]] = [[] for _ in batches]
    for site, gradient_BTV in zip(sites, gradients, strict=True):
        keys, values = (at(x, positions_N).float().split(counts) for x in (seen[site.name][0], gradient_BTV))
        for index, pair in enumerate(zip(keys, values, strict=True)):
            rows[index].append(Rows(*pair))
    return [Captured(loss, n, found) for loss, n, found in zip(losses.detach(), tokens, rows, strict=True)]


def capture_tokens(
    model: PreTrainedModel,
    sites: Sequence[EditSite],
    batch: Batch,
    inputs: Inputs = tokens_of,
    relabel: Relabel | None = None,
) -> Asked:
    """Every answer token with its key and the gradient of the summed cross-entropy, in one forward and backward.

    A token's gradient holds the losses of later tokens of its sequence, which look back at it.
    """
    with torch.enable_grad(), _watch(sites) as seen:
        logits_MW, labels_M = answer_logits(model, batch, inputs, whole=_edits_head(model, sites))
        labels_M = labels_M if relabel is None else to_device(relabel(logits_MW.detach()), labels_M.device)
        losses_M = cross_entropy(logits_MW, labels_M, reduction="none")
        gradients = torch.autograd.grad(losses_M.sum(), [seen[site.name][1] for site in sites])
    places_M1, logits_MW = labels_M[:, None], logits_MW.detach()
    margins_M = logits_MW.gather(1, places_M1).squeeze(1) - logits_MW.scatter(1, places_M1, -torch.inf).amax(1)
    positions_M = positions(batch.labels_BT != IGNORED)
    pairs = zip((seen[site.name][0] for site in sites), gradients, strict=True)
    rows = [Rows(*(at(x, positions_M).float() for x in pair)) for pair in pairs]
    return Asked(losses_M.detach(), margins_M, rows)
