"""Every token's own gradient in one backward pass: attention that sees earlier keys and values as constants.

A token's loss reaches the rows of its own position through its own query, key and value; later tokens' losses reach
them through the keys and values that they look back at. With these detached, the gradient of the summed loss at a
position is that of the position's own loss, which else takes a sequence for every token.

Shape suffixes: B sequences, H heads, T positions, D size of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from data.batches import Batch, to_device
from editor.capture import Inputs

NAME = "own_gradients"
PROBE = 12  # tokens of the sequence on which the model is compared with itself


def attention(
    module: nn.Module, query_BHTD: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
    scaling: float | None = None, **_: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Eager attention, of which only the diagonal passes gradients to keys and values; as transformers calls it."""
    groups, size = query_BHTD.shape[1] // key.shape[1], query_BHTD.shape[-1]
    key_BHTD, value_BHTD = (x.repeat_interleave(groups, 1) for x in (key, value))
    fixed_key_BHTD, fixed_value_BHTD = key_BHTD.detach(), value_BHTD.detach()
    own_BHT = (query_BHTD * (key_BHTD - fixed_key_BHTD)).sum(-1)  # zeros, with a gradient
    scores_BHTT = query_BHTD @ fixed_key_BHTD.transpose(2, 3) + torch.diag_embed(own_BHT)
    scores_BHTT = scores_BHTT * (size**-0.5 if scaling is None else scaling)
    scores_BHTT = scores_BHTT if mask is None else scores_BHTT + mask
    weights_BHTT = scores_BHTT.softmax(-1, dtype=torch.float32).to(query_BHTD.dtype)
    diagonal_BHT1 = weights_BHTT.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    found_BHTD = weights_BHTT @ fixed_value_BHTD + diagonal_BHT1 * (value_BHTD - fixed_value_BHTD)
    return found_BHTD.transpose(1, 2).contiguous(), weights_BHTT


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def _with_own(model: PreTrainedModel) -> Iterator[None]:
    config: Any = model.base_model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def own_gradients(inputs: Inputs) -> Inputs:
    """The same inputs, for which the model runs with this attention; what they are made of is made as before."""

    @contextmanager
    def given(model: PreTrainedModel, batch: Batch) -> Iterator[dict[str, Tensor]]:
        with inputs(model, batch) as found, _with_own(model):
            yield found

    return given


def works(model: PreTrainedModel) -> bool:
    """Whether a model's attention can be replaced: it then says the same, and a token's gradient ends at its place."""
    ids_BT = to_device(torch.arange(3, 3 + PROBE).unsqueeze(0) % model.config.vocab_size, model.device)
    embedded_BTD = model.get_input_embeddings()(ids_BT).detach().requires_grad_()
    decoder: Any = model.base_model
    try:
        with torch.enable_grad():
            whole = decoder(inputs_embeds=embedded_BTD, use_cache=False).last_hidden_state
            with _with_own(model):
                found = decoder(inputs_embeds=embedded_BTD, use_cache=False).last_hidden_state
            (gradient_BTD,) = torch.autograd.grad(found[0, -1].float().sum(), embedded_BTD)
    except (AttributeError, LookupError, TypeError, ValueError):
        return False
    near = (whole - found).float().norm() <= torch.finfo(whole.dtype).eps ** 0.5 * whole.float().norm()
    return bool(near and not gradient_BTD[0, :-1].any() and gradient_BTD[0, -1].any())
