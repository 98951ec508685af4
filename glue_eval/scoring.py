"""One scorer for all tasks: a prompt's single forward pass serves the greedy text and every choice. And perplexity.

Shape suffixes: B questions, P prompt positions (padded on the left), T further positions, V vocabulary,
K last prompt positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, RepetitionPenaltyLogitsProcessor

from config.progress import Progress
from config.sizes import at_once
from data.base import DataError
from data.batches import special_prefix, to_device
from glue_eval.predictions import NEW_TOKENS, Choice, Question, Scored, common_length, context_length

# Bounds the key-value cache of one batch, whatever batch_size says.
TOKENS_PER_BATCH = 8192
# What a forward pass costs beside its tokens, in tokens: reading the weights, launching kernels. Measured on a CPU;
# the figure for CUDA is an estimate. It only decides how prompts are cut into passes, never a result.
PASS_COST = {"cpu": 24, "cuda": 4096}
WINDOW = 1024  # tokens of a text that perplexity reads together
MOST_NATS = 700  # exp of more is no float
CHUNK = 128  # positions whose logits perplexity holds at once


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
    logits_BKV: Tensor


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
    model: PreTrainedModel, questions: Sequence[Question], batch_size: int | str, name: str = "questions"
) -> list[Scored]:
    """Score the questions, in the order given; `batch_size` bounds memory and never changes a result.

    `name` stands before the progress that a terminal shows.
    """
    results: dict[int, Scored] = {}
    prefix = shared_prefix(model, questions)
    most = at_once("downstream.batch_size", batch_size, model.device.type)
    with Progress(total=len(questions), desc=name, disable=None, leave=False) as bar:
        for batch in token_batches([len(q.prompt) for q in questions], most, TOKENS_PER_BATCH):
            part = [questions[at] for at in batch]
            prefilled = prefill(model, part, prefix)
            log_probs = _choice_log_probs(model, part, prefilled)
            new_tokens = _greedy(model, prefilled)
            results |= dict(zip(batch, map(Scored, new_tokens, log_probs), strict=True))
            bar.update(len(batch))
    return [results[at] for at in range(len(questions))]


def shared_prefix(model: PreTrainedModel, questions: Sequence[Question]) -> Prefix:
    """Run what all prompts start with once; the token before any choice stays with each prompt."""
    before_choice = min((choice.shared for q in questions for choice in q.choices), default=0) - 1
    count = min(before_choice, common_length([q.prompt for q in questions]))
    if count < 1 or len(questions) == 1:
        return Prefix([], [])
    tokens = questions[0].prompt[:count]
    ids = torch.tensor([tokens], device=model.device)
    cache = model(input_ids=ids, past_key_values=DynamicCache(), use_cache=True, logits_to_keep=1).past_key_values
    return Prefix(tokens, [(layer.keys, layer.values) for layer in cache.layers])


def pass_sizes(lengths: Sequence[int], pass_cost: int) -> list[int]:
    """Cut sequences, longest first, into consecutive passes of least cost; return how many each pass takes.

    A pass costs its padded tokens plus `pass_cost`, what a pass costs beside its tokens, in tokens.
    """
    best: list[tuple[int, list[int]]] = [(0, [])]  # cost and sizes of the last sequences, of ever more of them
    for start in reversed(range(len(lengths))):
        ways = [(pass_cost + size * lengths[start] + best[-size][0], size) for size in range(1, len(best) + 1)]
        cost, size = min(ways)
        best.append((cost, [size, *best[-size][1]]))
    return best[-1][1]


def prefill(model: PreTrainedModel, questions: Sequence[Question], prefix: Prefix) -> Prefilled:
    """Run the prompts, longest first, in passes with little padding, and join what they leave."""
    sizes = pass_sizes([len(q.prompt) - len(prefix.tokens) for q in questions], PASS_COST.get(model.device.type, 24))
    keep = 1 + max(len(q.prompt) - choice.shared for q in questions for choice in q.choices)
    starts = accumulate(sizes, initial=0)
    return _joined([_one_pass(model, questions[a:b], prefix, keep) for a, b in pairwise(starts)])


def _one_pass(model: PreTrainedModel, questions: Sequence[Question], prefix: Prefix, keep: int) -> Prefilled:
    """One pass over the prompts, with the logits of the last `keep` positions.

    A row is the shared prefix, padding on the left of the rest, the rest: all rows end together.
    """
    count, start, device = len(questions), len(prefix.tokens), model.device
    width = max(start + keep, *(len(q.prompt) for q in questions))
    gaps = [[0] * (width - len(q.prompt)) for q in questions]
    rows = [prefix.tokens + gap + q.prompt[start:] for q, gap in zip(questions, gaps, strict=True)]
    masks = [[1] * start + gap + [1] * (width - start - len(gap)) for gap in gaps]
    input_ids_BP, attention_BP = torch.tensor([rows, masks], device=device)
    shared = [tuple(state.expand(count, -1, -1, -1) for state in layer) for layer in prefix.layers]
    out = model(
        input_ids=input_ids_BP[:, start:],
        attention_mask=attention_BP,
        position_ids=(attention_BP.cumsum(1) - 1)[:, start:].clamp(min=0),
        past_key_values=DynamicCache(shared),
        use_cache=True,
        logits_to_keep=keep,
    )
    return Prefilled(out.past_key_values, input_ids_BP, attention_BP, out.logits)


def _joined(parts: Sequence[Prefilled]) -> Prefilled:
    """The passes as one batch, the narrower ones padded on the left."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.input_ids_BP.shape[1] for part in parts)
    gaps = [width - part.input_ids_BP.shape[1] for part in parts]

    def joined(tensors: Sequence[Tensor], *behind: int) -> Tensor:
        return torch.cat([pad(tensor, (*behind, gap, 0)) for tensor, gap in zip(tensors, gaps, strict=True)])

    layers = zip(*(part.cache.layers for part in parts), strict=True)
    states = [(joined([at.keys for at in one], 0, 0), joined([at.values for at in one], 0, 0)) for one in layers]
    return Prefilled(
        DynamicCache(states),
        joined([part.input_ids_BP for part in parts]),
        joined([part.attention_BP for part in parts]),
        torch.cat([part.logits_BKV for part in parts]),
    )


def _choice_log_probs(model: PreTrainedModel, questions: Sequence[Question], prefilled: Prefilled) -> list[list[float]]:
    """Mean log probability of each choice's tokens: [question][label]."""
    last, device = prefilled.logits_BKV.shape[1] - 1, model.device
    means_B_labels = []
    for choices in zip(*(q.choices for q in questions), strict=True):
        at = [last - len(q.prompt) + c.shared for q, c in zip(questions, choices, strict=True)]
        first_B = torch.tensor([c.tokens[0] for c in choices], device=device)
        total_B = _log_prob(prefilled.logits_BKV[range(len(at)), at], first_B)
        if any(len(c.tokens) > 1 for c in choices):
            total_B = total_B + _tail_log_probs(model, choices, prefilled)
        means_B_labels.append(total_B / torch.tensor([len(c.tokens) for c in choices], device=device))
    return torch.stack(means_B_labels, dim=1).tolist()


def _tail_log_probs(model: PreTrainedModel, choices: Sequence[Choice], prefilled: Prefilled) -> Tensor:
    """Summed log probability of each choice's tokens after the first, fed behind the prompt's cache: [B]."""
    tokens_BT = pad_sequence([torch.tensor(c.tokens) for c in choices], batch_first=True).to(model.device)
    shared_B1 = torch.tensor([[c.shared] for c in choices], device=model.device)
    last_B1 = torch.tensor([[len(c.tokens) - 1] for c in choices], device=model.device)
    place_T = torch.arange(tokens_BT.shape[1] - 1, device=model.device)
    real_BT = place_T < last_B1
    # Prompt positions that this choice's tokens replace are hidden, so the cache serves every choice.
    seen_BP = prefilled.attention_BP * (prefilled.attention_BP.cumsum(1) <= shared_B1)
    out = model(
        input_ids=tokens_BT[:, :-1],
        attention_mask=torch.cat([seen_BP, real_BT.long()], dim=1),
        position_ids=torch.where(real_BT, shared_B1 + place_T, 0),
        past_key_values=prefilled.cache,
        use_cache=True,
    )
    prefilled.cache.crop(-len(place_T))
    found_TB = _log_prob(out.logits, tokens_BT[:, 1:]).where(real_BT, 0.0).T
    return pad(found_TB, (0, 0, 1, 0)).sum(0)  # a first row of zeros keeps the order of additions, and every digit


def _log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log probability of one token a place, in float32."""
    logits = logits.float()
    return logits.gather(-1, tokens[..., None])[..., 0] - logits.logsumexp(-1)


def _greedy(model: PreTrainedModel, prefilled: Prefilled) -> list[list[int]]:
    """Up to NEW_TOKENS greedy tokens behind each prompt, its end-of-text token included, as model.generate gives.

    A row whose text has ended leaves the batch, and `prefilled.cache` with it.
    """
    settings = model.generation_config
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    penalized = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty or 1.0)
    attention_BT, logits_BV = prefilled.attention_BP, prefilled.logits_BKV[:, -1]
    # padding stands on the left; the penalty sees the last token in its place
    seen_BT = prefilled.input_ids_BP.where(attention_BT.bool(), prefilled.input_ids_BP[:, -1:])
    rows = list(range(len(seen_BT)))
    new_tokens: list[list[int]] = [[] for _ in rows]
    for step in range(NEW_TOKENS):
        next_B = penalized(seen_BT, logits_BV.float()).argmax(1)
        tokens = next_B.tolist()
        for row, token in zip(rows, tokens, strict=True):
            new_tokens[row].append(token)
        on = [at for at, token in enumerate(tokens) if token not in ends]
        if step == NEW_TOKENS - 1 or not on:
            break
        on_B = to_device(torch.tensor(on), seen_BT.device)
        if len(on) < len(rows):
            layers: list[Any] = prefilled.cache.layers
            for layer in layers:  # each on its own device, where a model is spread over several
                layer.batch_select_indices(on_B.to(layer.keys.device))
        rows = [rows[at] for at in on]
        seen_BT = torch.cat([seen_BT, next_B[:, None]], dim=1)[on_B]
        attention_BT = torch.cat([attention_BT, torch.ones_like(next_B[:, None])], dim=1)[on_B]
        logits_BV = model(
            input_ids=seen_BT[:, -1:],
            attention_mask=attention_BT,
            position_ids=attention_BT.sum(1, keepdim=True) - 1,
            past_key_values=prefilled.cache,
            use_cache=True,
        ).logits[:, -1]
    return new_tokens


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
    for start in Progress(range(0, len(ids), size), desc="perplexity", disable=None, leave=False):
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
        targets = row[start + 1 : start + 1 + CHUNK]
        fed = row[start : start + len(targets)]
        logits = model(input_ids=fed[None], past_key_values=cache, use_cache=True).logits[0]
        losses = cross_entropy(logits.float(), targets, reduction="none")
        total += losses[max(0, first - 1 - start) :].double().sum().item()
    return total
