"""Perplexity of a text."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from data.base import DataError
from data.batches import special_prefix
from glue_eval.prompts import context_length

WINDOW = 1024
MOST_NATS = 700  # exp of more is no float
CHUNK = 128  # positions whose logits are held at once


@torch.inference_mode()
def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, window: int = WINDOW
) -> dict[str, float | None]:
    """Perplexity per token of a UTF-8 text, in windows side by side of at most `window` tokens.

    A window starts with what the tokenizer puts before a text (BOS or nothing) and knows nothing of the
    windows before it; its own first token is only scored behind a BOS. Returns tokens (scored), nll (mean, in nats)
    and perplexity, the last two None where they are not finite.

    Raises:
        DataError: the file is no UTF-8 text or has fewer than 2 tokens.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    head = list(special_prefix(tokenizer))
    # The text is longer than the model's context by design; the tokenizer would warn.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    size = min(window, context_length(model.config) or window) - len(head)
    total, count = 0.0, 0
    for start in tqdm(range(0, len(ids), size), desc="perplexity", disable=None, leave=False):
        part = head + ids[start : start + size]
        total += _nll_sum(model, part, first=max(1, len(head)))
        count += len(part) - max(1, len(head))
    if not count:
        raise DataError(f"{path}: has {len(ids)} tokens; perplexity needs at least 2")
    mean = total / count
    return {
        "tokens": count,
        "nll": mean if math.isfinite(mean) else None,
        "perplexity": math.exp(mean) if mean < MOST_NATS else None,
    }


def _nll_sum(model: PreTrainedModel, ids: list[int], first: int) -> float:
    """Sum of -log p over the tokens from position `first` on, in float32, a chunk of positions at a time."""
    row = torch.tensor(ids, device=model.device)
    cache, total = DynamicCache(), 0.0
    for start in range(0, len(ids) - 1, CHUNK):
        fed = row[start : min(start + CHUNK, len(ids) - 1)]
        out = model(input_ids=fed[None], past_key_values=cache, use_cache=True)
        targets = row[start + 1 : start + 1 + len(fed)]
        losses = torch.nn.functional.cross_entropy(out.logits[0].float(), targets, reduction="none")
        total += losses[max(0, first - 1 - start) :].double().sum().item()
    return total
