"""What a model answers, teacher-forced: which answer tokens are its first choice (docs/design.md, 1).

Shape suffixes: M answer positions, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from config.schema import PromptFormat
from data.base import Edit
from data.batches import IGNORED, Tokens, pad, tokenize
from editor.capture import Inputs, answer_logits, tokens_of

ENOUGH = 256  # tokens that keep a processor busy: filling a batch up further is not worth padding
CHUNK = 256  # edits tokenized and sorted together: bounds memory, leaves little padding


@dataclass(frozen=True, slots=True)
class Answered:
    """One row's answer positions: the model's first choices, and which of them are right."""

    chosen_M: list[int]
    right_M: list[bool]

    @property
    def accuracy(self) -> float:
        """Share of the answer's tokens that are the first choice."""
        return sum(self.right_M) / len(self.right_M)

    @property
    def all_right(self) -> bool:
        """Whether every token of the answer is the first choice."""
        return all(self.right_M)


def probes(edit: Edit, *, mhop: bool) -> dict[str, tuple[str, str]]:
    """The (prompt, answer) pairs that measure one edit, by metric name; those that the edit has."""
    pairs = {
        "ES": (edit.prompt, edit.answer),
        "GS": (edit.rephrase, edit.answer),
        "LS": (edit.unrelated, edit.unrelated_answer),
        "person_score": (edit.persona, edit.answer),
        "mhop_score": (edit.mhop, edit.mhop_answer) if mhop else (None, None),
    }
    return {
        name: (prompt, answer) for name, (prompt, answer) in pairs.items() if prompt is not None and answer is not None
    }


def batched(rows: Sequence[Tokens], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of `rows`, longest first, in batches whose padded size stays within the budget.

    A batch that holds ENOUGH tokens ends before a row that would be more than a tenth padding.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].input_ids))
    batch: list[int] = []
    for index in order:
        longest = len(rows[batch[0]].input_ids) if batch else 0
        full = longest * (len(batch) + 1) > tokens_per_batch
        if batch and (full or (longest * len(batch) >= ENOUGH and len(rows[index].input_ids) < 0.9 * longest)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


Look = Callable[[int, Tensor], None]
"""Shown each row's index and its answer logits [M, W], float32, on the model's device."""


@torch.inference_mode()
def answers(
    model: PreTrainedModel,
    rows: Sequence[Tokens],
    tokens_per_batch: int,
    look: Look | None = None,
    inputs: Inputs = tokens_of,
) -> list[Answered]:
    """What the model would choose at each row's answer positions, in the order of `rows`."""
    found: dict[int, Answered] = {}
    for indices in batched(rows, tokens_per_batch):
        batch = pad([rows[i] for i in indices])
        counts = (batch.labels_BT != IGNORED).sum(1).tolist()
        logits_MW, labels_M = answer_logits(model, batch, inputs)
        chosen_M = logits_MW.argmax(-1)
        chosen, right = chosen_M.tolist(), (chosen_M == labels_M).tolist()
        start = 0
        for index, count in zip(indices, counts, strict=True):
            cut = slice(start, start + count)
            found[index] = Answered(chosen[cut], right[cut])
            if look is not None:
                look(index, logits_MW[cut])
            start += count
    return [found[index] for index in range(len(rows))]


def token_accuracy(
    model: PreTrainedModel, rows: Sequence[Tokens], tokens_per_batch: int, inputs: Inputs = tokens_of
) -> list[float]:
    """Share of each row's answer tokens that are the model's first choice, in the order of `rows`."""
    return [answered.accuracy for answered in answers(model, rows, tokens_per_batch, inputs=inputs)]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    *,
    mhop: bool,
    tokens_per_batch: int,
    prompt_format: PromptFormat = PromptFormat.raw,
    inputs: Inputs = tokens_of,
) -> dict[str, float]:
    """Mean over edits of every metric that the edits have prompts for (docs/design.md, 1)."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for chunk in chunks(edits, None, "evaluate"):
        asked = [(name, pair) for edit in chunk for name, pair in probes(edit, mhop=mhop).items()]
        rows = tokenize(tokenizer, [pair for _, pair in asked], prompt_format)
        for (name, _), value in zip(asked, token_accuracy(model, rows, tokens_per_batch, inputs), strict=True):
            sums[name] = sums.get(name, 0.0) + value
            counts[name] = counts.get(name, 0) + 1
    return {name: total / counts[name] for name, total in sums.items()}


Item = TypeVar("Item")


def chunks(edits: Iterable[Item], total: int | None, label: str) -> Iterator[list[Item]]:
    """The edits, CHUNK at a time, with a progress bar."""
    stream = iter(edits)
    with tqdm(total=total, desc=label, unit="edit", disable=None, leave=False) as bar:
        while chunk := list(islice(stream, CHUNK)):
            yield chunk
            bar.update(len(chunk))
