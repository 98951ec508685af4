"""One scorer for all tasks: a prompt's single forward pass serves the greedy text and every choice.

Shape suffixes: B questions, P prompt positions (padded on the left), T further positions, V vocabulary,
K last prompt positions, E tokens that end a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, RepetitionPenaltyLogitsProcessor

from glue_eval.prefill import Prefilled, prefill, shared_prefix
from glue_eval.prompts import NEW_TOKENS, Choice, Question

# Bounds the key-value cache of one batch, whatever batch_size says.
TOKENS_PER_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Scored:
    """The tokens generated after a prompt, and the mean log probability of each choice's tokens."""

    new_tokens: list[int]
    log_probs: list[float]


def token_batches(lengths: Sequence[int], batch_size: int, tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of similar lengths, longest first: at most batch_size each, and at most tokens_per_batch padded tokens.

    A single sequence longer than tokens_per_batch is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda at: (-lengths[at], at))
    while order:
        count = max(1, min(batch_size, tokens_per_batch // max(1, lengths[order[0]])))
        yield order[:count]
        order = order[count:]


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    questions: Sequence[Question],
    batch_size: int,
    on_done: Callable[[int], Any] = lambda count: None,
) -> list[Scored]:
    """Score the questions, in the order given; `batch_size` bounds memory and never changes a result.

    `on_done` is called with the number of questions of each finished batch.
    """
    results: dict[int, Scored] = {}
    prefix = shared_prefix(model, questions)
    for batch in token_batches([len(q.prompt) for q in questions], batch_size, TOKENS_PER_BATCH):
        part = [questions[at] for at in batch]
        prefilled = prefill(model, part, prefix)
        log_probs = _choice_log_probs(model, part, prefilled)
        new_tokens = _greedy(model, prefilled)
        results |= dict(zip(batch, map(Scored, new_tokens, log_probs), strict=True))
        on_done(len(batch))
    return [results[at] for at in range(len(questions))]


def _choice_log_probs(model: PreTrainedModel, questions: Sequence[Question], prefilled: Prefilled) -> list[list[float]]:
    """Mean log probability of each choice's tokens: [question][label]."""
    last = prefilled.logits_BKV.shape[1] - 1
    first_B_labels = []
    for label in range(len(questions[0].choices)):
        choices = [q.choices[label] for q in questions]
        at = torch.tensor([last - len(q.prompt) + c.shared for q, c in zip(questions, choices, strict=True)])
        logits_BV = prefilled.logits_BKV[torch.arange(len(questions)), at.to(prefilled.logits_BKV.device)]
        total_B = _log_prob(logits_BV, [c.tokens[0] for c in choices])
        if any(len(c.tokens) > 1 for c in choices):
            total_B = total_B + _tail_log_probs(model, choices, prefilled)
        counts_B = torch.tensor([len(c.tokens) for c in choices], device=total_B.device)
        first_B_labels.append(total_B / counts_B)
    return torch.stack(first_B_labels, dim=1).tolist()


def _tail_log_probs(model: PreTrainedModel, choices: Sequence[Choice], prefilled: Prefilled) -> Tensor:
    """Summed log probability of each choice's tokens after the first, fed behind the prompt's cache: [B]."""
    width, device = prefilled.input_ids_BP.shape[1], model.device
    length = max(len(c.tokens) for c in choices) - 1
    fed = [[*c.tokens[:-1], *[0] * length][:length] for c in choices]
    shared_B = torch.tensor([c.shared for c in choices], device=device)
    counts_B = torch.tensor([len(c.tokens) - 1 for c in choices], device=device)
    place_T = torch.arange(length, device=device)
    real_BT = place_T < counts_B[:, None]
    # Prompt positions that this choice's tokens replace are hidden, so the cache serves every choice.
    hidden_BP = torch.arange(width, device=device) >= (width - prefilled.lengths_B + shared_B)[:, None]
    attention = torch.cat([prefilled.attention_BP * ~hidden_BP, real_BT.long()], dim=1)
    out = model(
        input_ids=torch.tensor(fed, device=device),
        attention_mask=attention,
        position_ids=torch.where(real_BT, shared_B[:, None] + place_T, 0),
        past_key_values=prefilled.cache,
        use_cache=True,
    )
    prefilled.cache.crop(-length)
    sums = [torch.zeros(len(choices), device=device)]
    for at in range(length):
        targets = [c.tokens[at + 1] if at + 1 < len(c.tokens) else 0 for c in choices]
        sums.append(_log_prob(out.logits[:, at], targets).where(real_BT[:, at], 0.0))
    return torch.stack(sums).sum(0)


def _log_prob(logits_BV: Tensor, tokens: Sequence[int]) -> Tensor:
    """Log probability of one token a row, in float32: [B]."""
    logits_BV = logits_BV.float()
    picked_B = torch.tensor(tokens, device=logits_BV.device)
    return logits_BV.gather(1, picked_B[:, None])[:, 0] - logits_BV.logsumexp(1)


def _greedy(model: PreTrainedModel, prefilled: Prefilled) -> list[list[int]]:
    """Up to NEW_TOKENS greedy tokens behind each prompt, its end-of-text token included, as model.generate gives.

    A row whose text has ended leaves the batch, and `prefilled.cache` with it.
    """
    settings = model.generation_config
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    ends_E = torch.tensor([end for end in ends if end is not None], dtype=torch.long, device=model.device)
    seen_BT, attention_BT, positions_B = prefilled.input_ids_BP, prefilled.attention_BP, prefilled.lengths_B
    logits_BV = prefilled.logits_BKV[:, -1]
    new_tokens: list[list[int]] = [[] for _ in range(len(seen_BT))]
    rows_B = torch.arange(len(seen_BT), device=model.device)
    for step in range(NEW_TOKENS):
        next_B = _penalized(logits_BV.float(), seen_BT, attention_BT, settings.repetition_penalty).argmax(1)
        for row, token in zip(rows_B.tolist(), next_B.tolist(), strict=True):
            new_tokens[row].append(token)
        on_B = (~torch.isin(next_B, ends_E)).nonzero()[:, 0]
        if step == NEW_TOKENS - 1 or not len(on_B):
            break
        if len(on_B) < len(next_B):
            prefilled.cache.batch_select_indices(on_B)
        rows_B, positions_B = rows_B[on_B], positions_B[on_B]
        seen_BT = torch.cat([seen_BT, next_B[:, None]], dim=1)[on_B]
        attention_BT = torch.cat([attention_BT, torch.ones_like(next_B[:, None])], dim=1)[on_B]
        logits_BV = model(
            input_ids=seen_BT[:, -1:],
            attention_mask=attention_BT,
            position_ids=(positions_B + step)[:, None],
            past_key_values=prefilled.cache,
            use_cache=True,
        ).logits[:, -1]
    return new_tokens


def _penalized(logits_BV: Tensor, seen_BT: Tensor, attention_BT: Tensor, penalty: float | None) -> Tensor:
    """The repetition penalty of the model's generation config, over the tokens that are no padding."""
    if penalty is None or penalty == 1.0:
        return logits_BV
    real_BT = seen_BT.where(attention_BT.bool(), seen_BT[:, -1:])  # padding stands on the left
    return RepetitionPenaltyLogitsProcessor(penalty)(real_BT, logits_BV)
