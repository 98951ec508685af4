"""One scorer for all tasks: a prompt's single forward pass serves the greedy text and every choice.

Shape suffixes: B questions, P prompt positions (padded on the left), T further positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from glue_eval.prompts import NEW_TOKENS, Choice, Question, token_batches

# Bounds the key-value cache of one batch, whatever batch_size says.
TOKENS_PER_BATCH = 8192


@dataclass(frozen=True, slots=True)
class Scored:
    """The tokens generated after a prompt, and the mean log probability of each choice's tokens."""

    new_tokens: list[int]
    log_probs: list[float]


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


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    questions: Sequence[Question],
    batch_size: int,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Scored]:
    """Score the questions, in the order given; `batch_size` bounds memory and never changes a result.

    `on_done` is called with the number of questions of each finished batch.
    """
    results: dict[int, Scored] = {}
    prefix = _shared_prefix(model, questions)
    for batch in token_batches([len(q.prompt) for q in questions], batch_size, TOKENS_PER_BATCH):
        part = [questions[at] for at in batch]
        prefilled = _prefill(model, part, prefix)
        log_probs = _choice_log_probs(model, part, prefilled)
        new_tokens = _greedy(model, prefilled)
        results |= {at: Scored(*pair) for at, *pair in zip(batch, new_tokens, log_probs, strict=True)}
        on_done(len(batch))
    return [results[at] for at in range(len(questions))]


def _shared_prefix(model: PreTrainedModel, questions: Sequence[Question]) -> Prefix:
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


def _prefill(model: PreTrainedModel, questions: Sequence[Question], prefix: Prefix) -> Prefilled:
    """Run the prompts once, with logits only from where the first choice token is predicted.

    A row is the shared prefix, padding on the left of the rest, the rest: all rows end together.
    """
    count, start, device = len(questions), len(prefix.tokens), model.device
    width = max(len(q.prompt) for q in questions)
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
        logits_to_keep=1 + max(len(q.prompt) - choice.shared for q in questions for choice in q.choices),
    )
    return Prefilled(out.past_key_values, input_ids_BP, attention_BP, lengths_B, out.logits)


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
    """Up to NEW_TOKENS greedy tokens behind each prompt, its end-of-text token included, as model.generate gives."""
    settings = model.generation_config
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    seen_BT, attention = prefilled.input_ids_BP, prefilled.attention_BP
    logits_BV, positions_B = prefilled.logits_BKV[:, -1], prefilled.lengths_B
    done_B = torch.zeros_like(positions_B, dtype=torch.bool)
    width = seen_BT.shape[1]
    for step in range(NEW_TOKENS):
        next_B = _penalized(logits_BV.float(), seen_BT, attention, settings.repetition_penalty).argmax(1)
        seen_BT = torch.cat([seen_BT, next_B[:, None]], dim=1)
        attention = torch.cat([attention, torch.ones_like(next_B[:, None])], dim=1)
        done_B |= torch.isin(next_B, torch.tensor([e for e in ends if e is not None], device=next_B.device))
        if step == NEW_TOKENS - 1 or done_B.all():
            break
        out = model(
            input_ids=next_B[:, None],
            attention_mask=attention,
            position_ids=(positions_B + step)[:, None],
            past_key_values=prefilled.cache,
            use_cache=True,
        )
        logits_BV = out.logits[:, -1]
    return [_until_end(tokens, ends) for tokens in seen_BT[:, width:].tolist()]


def _penalized(logits_BV: Tensor, seen_BT: Tensor, attention_BT: Tensor, penalty: float | None) -> Tensor:
    """The repetition penalty of the model's generation config, over the tokens that are no padding."""
    if penalty is None or penalty == 1.0:
        return logits_BV
    picked_BT = logits_BV.gather(1, seen_BT)
    changed_BT = torch.where(picked_BT < 0, picked_BT * penalty, picked_BT / penalty)
    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    seen_BV.scatter_reduce_(1, seen_BT, attention_BT.bool(), reduce="amax")
    return torch.where(seen_BV, logits_BV.scatter(1, seen_BT, changed_BT), logits_BV)


def _until_end(tokens: list[int], ends: Sequence[int | None]) -> list[int]:
    stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: stop + 1]
