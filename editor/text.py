"""Text that a model writes itself, and what it makes editing's sites feel.

The next token that was sampled is the label that a Fisher information matrix is made with, so that a model's own text
gives its metric by one forward and backward pass. Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from config.progress import Progress
from data.batches import IGNORED, Batch
from editor.capture import Inputs, Relabel, capture_tokens, tokens_of
from editor.metric import Moments
from editor.sites import EditSite

Seed = Sequence[int]
"""Tokens that text starts with."""
TOGETHER = 16
"""Sequences that are written together."""
NEVER = 2**31 - 1
"""No token: text goes on behind the end of an answer, with the next turn or document."""


def prompts_of(batches: Sequence[Batch]) -> list[list[int]]:
    """The tokens before the answer, of every sequence."""
    found = []
    for batch in batches:
        firsts = (batch.labels_BT != IGNORED).int().argmax(1).tolist()
        found += [ids[: first + 1] for ids, first in zip(batch.input_ids_BT.tolist(), firsts, strict=True)]
    return found


def beginnings(prompts: Sequence[Seed], count: int, draw: torch.Generator) -> list[list[int]]:
    """Prompts cut off somewhere behind what all of them begin with: what goes on from there are their neighbours.

    TOGETHER of them are cut at the same place, which is drawn, as are they.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    first = max(1, shared(distinct) if len(distinct) > 1 else 1)
    found: list[list[int]] = []
    while len(found) < count:
        one = distinct[integer(len(distinct), draw)]
        end = first + integer(max(1, len(one) - first), draw)
        long = [prompt for prompt in distinct if len(prompt) >= end]
        found += [list(long[integer(len(long), draw)][:end]) for _ in range(min(TOGETHER, count - len(found)))]
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
    plain = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "eos_token_id": NEVER, "pad_token_id": 0}
    settings = GenerationConfig(do_sample=True, num_beams=1, max_new_tokens=tokens, **plain)
    ids_BT, generating = seeds_BT.to(model.device), cast(Any, model)  # transformers types generate as a tensor
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(integer(2**31, draw))
        found_BT = generating.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), generation_config=settings)
    return cast(Tensor, found_BT).cpu()


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


def sampled(draw: torch.Generator) -> Relabel:
    """What the model itself says where a text has an answer: tokens drawn from its distribution, on the CPU."""
    return lambda logits_MW: torch.multinomial(logits_MW.softmax(-1).cpu(), 1, generator=draw).squeeze(1)


def moments_of(
    model: PreTrainedModel,
    sites: Sequence[EditSite],
    batches: Iterable[Batch],
    device: torch.device,
    relabel: Relabel | None = None,
    inputs: Inputs = tokens_of,
) -> Moments:
    """Second moments of the keys and value gradients at every position with a label."""
    found = Moments()
    for batch in Progress(batches, desc="text of the metric", unit="batch", disable=None, leave=False, delay=2):
        found.add([rows.to(device) for rows in capture_tokens(model, sites, batch, inputs, relabel).rows])
    return found
