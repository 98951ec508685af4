"""Greedy answers as a user would get them: no answer length given away, a natural stop, then compared as text.

Shape suffixes: B sequences, T positions, W vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=4)
def _token_kinds(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[Tensor, Tensor]:
    """Per token id: whether it holds text beside white space, and whether it holds a line break after any text."""
    ids = range(min(size, len(tokenizer)))
    written = tokenizer.batch_decode([[i] for i in ids], skip_special_tokens=True) + [""] * (size - len(ids))
    has_text = torch.tensor([bool(text.strip()) for text in written])
    breaks = torch.tensor(["\n" in (text.lstrip() if text.strip() else text) for text in written])
    return has_text, breaks


class AnswerEnds(StoppingCriteria):
    """A row is done at the first line break after some text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, rows: int, device: torch.device) -> None:
        self.has_text_W, self.breaks_W = (kind.to(device) for kind in _token_kinds(tokenizer, vocabulary))
        self.started_B = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Which rows [B] are done after the last token of input_ids [B, T]."""
        last_B = input_ids[:, -1]
        self.started_B |= self.has_text_W[last_B]
        return self.breaks_W[last_B] & self.started_B


def first_line(text: str) -> str:
    """The answer in a continuation: its first line with something on it."""
    return text.strip().split("\n")[0].strip()


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    tokens_per_batch: int,
) -> list[str]:
    """Greedy answers to tokenized prompts, in their order; batches are padded on the left.

    An answer ends with the model's own end token, at a line break, or after `max_new_tokens`.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: dict[int, str] = {}
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]]) + max_new_tokens
        indices = order[start : start + max(1, tokens_per_batch // longest)]
        texts = _generate_batch(model, tokenizer, [prompts[i] for i in indices], max_new_tokens)
        found |= dict(zip(indices, texts, strict=True))
        start += len(indices)
    return [found[i] for i in range(len(prompts))]


def _generate_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[int]], max_new_tokens: int
) -> list[str]:
    longest = max(map(len, prompts))
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    padding = tokenizer.pad_token_id
    if padding is None:
        padding = (ends[0] if isinstance(ends, list) else ends) or 0
    ids_BT = torch.tensor([[padding] * (longest - len(ids)) + ids for ids in prompts], device=model.device)
    attention_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    settings = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=padding
    )
    stop = AnswerEnds(tokenizer, model.config.vocab_size, len(prompts), model.device)
    generating: Any = model  # transformers types generate as a tensor
    output_BT = generating.generate(
        input_ids=ids_BT,
        attention_mask=attention_BT,
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([stop]),
    )
    texts = tokenizer.batch_decode(output_BT[:, longest:], skip_special_tokens=True)
    return [first_line(text) for text in texts]


def normalized(text: str) -> str:
    """Compatible characters made one, lower case, no punctuation, no articles, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = "".join(" " if unicodedata.category(char).startswith("P") else char for char in text)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact(answer: str, target: str) -> bool:
    """Whether the answer is the target, after normalization where it leaves something of the target."""
    wanted = normalized(target)
    return normalized(answer) == wanted if wanted else answer.strip() == target.strip()


def contains(answer: str, target: str) -> bool:
    """Whether the target stands in the answer as whole words, after normalization."""
    wanted = normalized(target)
    return f" {wanted} " in f" {normalized(answer)} " if wanted else target.strip() in answer
