"""The prompts' forward passes: what all prompts start with once, then the rest with little padding.

Shape suffixes: B questions, P prompt positions, K last prompt positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from glue_eval.prompts import Question

# What a forward pass costs beside its tokens, in tokens: reading the weights, launching kernels. Measured on a CPU;
# the figure for CUDA is an estimate. It only decides how prompts are cut into passes, never a result.
PASS_COST = {"cpu": 24, "cuda": 4096}


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that all prompts start with (the template, the shots), and their cache per layer, of one row."""

    tokens: list[int]
    layers: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What the prompts' forward pass leaves: its cache, and logits of the last positions (K >= 1) only."""

    cache: DynamicCache
    input_ids_BP: Tensor
    attention_BP: Tensor
    lengths_B: Tensor
    logits_BKV: Tensor


def shared_prefix(model: PreTrainedModel, questions: Sequence[Question]) -> Prefix:
    """Run what all prompts start with once; the token before any choice stays with each prompt."""
    if len(questions) < 2:
        return Prefix([], [])
    limit = min(choice.shared for q in questions for choice in q.choices) - 1
    columns = zip(*(q.prompt[: max(0, limit)] for q in questions), strict=True)
    tokens = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    if not tokens:
        return Prefix([], [])
    ids = torch.tensor([tokens], device=model.device)
    cache = model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1).past_key_values
    return Prefix(tokens, [(layer.keys, layer.values) for layer in cache.layers])


def pass_sizes(lengths: Sequence[int], pass_cost: int) -> list[int]:
    """Cut sequences, longest first, into consecutive passes of least cost; return how many each pass takes.

    A pass costs its padded tokens plus `pass_cost`, what a pass costs beside its tokens, in tokens.
    """
    best, sizes = [0] * (len(lengths) + 1), [0] * len(lengths)
    for start in reversed(range(len(lengths))):
        best[start], sizes[start] = min(
            (pass_cost + size * lengths[start] + best[start + size], size)
            for size in range(1, len(lengths) - start + 1)
        )
    found: list[int] = []
    while sum(found) < len(lengths):
        found.append(sizes[sum(found)])
    return found


def prefill(model: PreTrainedModel, questions: Sequence[Question], prefix: Prefix) -> Prefilled:
    """Run the prompts, longest first, in passes with little padding, and join what they leave."""
    sizes = pass_sizes([len(q.prompt) - len(prefix.tokens) for q in questions], PASS_COST.get(model.device.type, 24))
    keep = 1 + max(len(q.prompt) - choice.shared for q in questions for choice in q.choices)
    starts = [0, *accumulate(sizes)]
    return _joined([_one_pass(model, questions[a:b], prefix, keep) for a, b in pairwise(starts)])


def _one_pass(model: PreTrainedModel, questions: Sequence[Question], prefix: Prefix, keep: int) -> Prefilled:
    """One pass over the prompts, with the logits of the last `keep` positions.

    A row is the shared prefix, padding on the left of the rest, the rest: all rows end together.
    """
    count, start, device = len(questions), len(prefix.tokens), model.device
    width = max(start + keep, *(len(q.prompt) for q in questions))
    rows = [prefix.tokens + [0] * (width - len(q.prompt)) + q.prompt[start:] for q in questions]
    input_ids_BP = torch.tensor(rows, device=device)
    lengths_B = torch.tensor([len(q.prompt) for q in questions], device=device)
    place_P = torch.arange(width, device=device)
    attention_BP = ((place_P < start) | (place_P >= start + width - lengths_B[:, None])).long()
    shared = [tuple(state.expand(count, -1, -1, -1) for state in layer) for layer in prefix.layers]
    out = model(
        input_ids=input_ids_BP[:, start:],
        attention_mask=attention_BP,
        position_ids=(attention_BP.cumsum(1) - 1)[:, start:].clamp(min=0),
        past_key_values=DynamicCache(shared) if shared else DynamicCache(),
        use_cache=True,
        logits_to_keep=keep,
    )
    return Prefilled(out.past_key_values, input_ids_BP, attention_BP, lengths_B, out.logits)


def _joined(parts: Sequence[Prefilled]) -> Prefilled:
    """The passes as one batch, the narrower ones padded on the left."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.input_ids_BP.shape[1] for part in parts)
    gaps = [width - part.input_ids_BP.shape[1] for part in parts]

    def states(layer: int, name: str) -> Tensor:
        found = [getattr(part.cache.layers[layer], name) for part in parts]
        return torch.cat([pad(state, (0, 0, gap, 0)) for state, gap in zip(found, gaps, strict=True)])

    layers = range(len(parts[0].cache.layers))
    return Prefilled(
        DynamicCache([(states(layer, "keys"), states(layer, "values")) for layer in layers]),
        torch.cat([pad(part.input_ids_BP, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)]),
        torch.cat([pad(part.attention_BP, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)]),
        torch.cat([part.lengths_B for part in parts]),
        torch.cat([part.logits_BKV for part in parts]),
    )
