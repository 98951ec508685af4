"""ES, GS, LS and their kin: mean token accuracy over the answer, teacher-forced.

Shape suffixes: M answer positions, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.base import Edit
from data.batches import IGNORED, Tokens, pad, tokenize
from editor.capture import answer_logits

CHUNK = 256  # edits tokenized and sorted together: bounds memory, leaves little padding


def probes(edit: Edit, *, mhop: bool) -> dict[str, tuple[str, str]]:
    """The (prompt, answer) pairs that measure one edit, by metric name."""
    pairs = {
        "ES": (edit.prompt, edit.answer),
        "GS": (edit.rephrase, edit.answer),
        "LS": (edit.unrelated, edit.unrelated_answer),
    }
    if edit.persona is not None:
        pairs["person_score"] = (edit.persona, edit.answer)
    if mhop and edit.mhop is not None and edit.mhop_answer is not None:
        pairs["mhop_score"] = (edit.mhop, edit.mhop_answer)
    return pairs


def batched(rows: Sequence[Tokens], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of `rows`, longest first, in batches whose padded size stays within the budget."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // len(rows[order[start]].input_ids))
        yield order[start : start + size]
        start += size


@torch.inference_mode()
def token_accuracy(model: PreTrainedModel, rows: Sequence[Tokens], tokens_per_batch: int) -> list[float]:
    """Share of each row's answer tokens that are the model's first choice, in the order of `rows`."""
    scores = [0.0] * len(rows)
    for indices in batched(rows, tokens_per_batch):
        batch = pad([rows[i] for i in indices])
        logits_MW, labels_M = answer_logits(model, batch.to(model.device))
        hits_M = (logits_MW.argmax(-1) == labels_M).cpu()
        counts = (batch.labels_BT != IGNORED).sum(1).tolist()
        for index, hits in zip(indices, hits_M.split(counts), strict=True):
            scores[index] = hits.float().mean().item()
    return scores


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    *,
    mhop: bool,
    tokens_per_batch: int,
    total: int | None = None,
    label: str = "evaluate",
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Mean over edits of every metric that the edits have prompts for (DESIGN section 1).

    `between` is called between chunks of edits; what it raises ends the scoring.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    stream = iter(edits)
    with tqdm(total=total, desc=label, unit="edit", disable=None, leave=False) as bar:
        while chunk := list(islice(stream, CHUNK)):
            asked = [(name, pair) for edit in chunk for name, pair in probes(edit, mhop=mhop).items()]
            rows = tokenize(tokenizer, [pair for _, pair in asked])
            for (name, _), value in zip(asked, token_accuracy(model, rows, tokens_per_batch), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + 1
            bar.update(len(chunk))
            between()
    return {name: total / counts[name] for name, total in sums.items()}
