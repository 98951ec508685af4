"""Text that a model writes itself, and what it makes editing's sites feel.

The next token that was sampled is the label that a Fisher information matrix is made with, so that a model's own text
gives its metric by one forward and backward pass. Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.batches import IGNORED, Batch
from editor.capture import capture_tokens
from editor.metric import Moments
from editor.sites import EditSite

Seed = Sequence[int]
"""Tokens that text starts with."""
TOGETHER = 16
"""Sequences that are written together."""


def prompts_of(batches: Sequence[Batch]) -> list[list[int]]:
    """The tokens before the answer, of every sequence."""
    found = []
    for batch in batches:
        firsts = (batch.labels_BT != IGNORED).int().argmax(1).tolist()
        found += [ids[: first + 1] for ids, first in zip(batch.input_ids_BT.tolist(), firsts, strict=True)]
    return found


def beginnings(prompts: Sequence[Seed], count: int, draw: torch.Generator) -> list[list[int]]:
    """Prompts cut off at random behind what all of them begin with: what goes on from there are their neighbours."""
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    first = shared(distinct) if len(distinct) > 1 else 1
    found = []
    for _ in range(count):
        prompt = distinct[integer(len(distinct), draw)]
        found.append(list(prompt[: max(1, first) + integer(max(1, len(prompt) - first), draw)]))
    return found


def shared(prompts: Sequence[Seed]) -> int:
    """How many tokens all prompts begin with."""
    return next((at for at, tokens in enumerate(zip(*prompts, strict=False)) if len({*tokens}) > 1), 0)


def first_tokens(prompts: Sequence[Seed], count: int, draw: torch.Generator) -> list[list[int]]:
    """Single tokens, drawn from those of all prompts: where running text may start."""
    tokens = [token for prompt in prompts for token in prompt]
    return [[tokens[integer(len(tokens), draw)]] for _ in range(count)]


def integer(below: int, draw: torch.Generator) -> int:
    """A whole number from 0 up."""
    return int(torch.randint(below, (1,), generator=draw).item())


@torch.no_grad()
def continued(model: PreTrainedModel, seeds_BT: Tensor, tokens: int, draw: torch.Generator) -> Tensor:
    """Each sequence with so many more tokens, sampled from the model one by one; [B, T + tokens], on the CPU."""
    ids_BT, given_BT, past = seeds_BT, seeds_BT, None
    for _ in range(tokens):
        found = model(input_ids=given_BT.to(model.device), past_key_values=past, use_cache=True)
        past = found.past_key_values
        given_BT = torch.multinomial(found.logits[:, -1].float().softmax(-1).cpu(), 1, generator=draw)
        ids_BT = torch.cat([ids_BT, given_BT], 1)
    return ids_BT


def written(model: PreTrainedModel, seeds: Sequence[Seed], tokens: int, draw: torch.Generator) -> Iterator[Batch]:
    """Batches of text that goes on from seeds; its labels are what the model wrote."""
    by_length = defaultdict(list)
    for seed in seeds:
        by_length[len(seed)].append(list(seed))
    for length, alike in sorted(by_length.items()):
        for start in range(0, len(alike), TOGETHER):
            ids_BT = continued(model, torch.tensor(alike[start : start + TOGETHER]), tokens, draw)
            labels_BT = ids_BT[:, 1:].clone()
            labels_BT[:, : length - 1] = IGNORED
            inputs_BT = ids_BT[:, :-1]
            yield Batch(inputs_BT, torch.ones_like(inputs_BT), labels_BT)


def moments_of(
    model: PreTrainedModel, sites: Sequence[EditSite], batches: Iterator[Batch], device: torch.device
) -> Moments:
    """Second moments of the keys and value gradients at every position with a label."""
    found = Moments()
    for batch in batches:
        found.add([rows.to(device) for rows in capture_tokens(model, sites, batch).rows])
    return found
