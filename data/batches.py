"""From edits to padded micro-batches (DESIGN section 2.1).

Shape suffixes: B sequences, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from data.base import DataError, Edit, place, shown
from data.records import Fits

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Tokens:
    """One prompt and its answer: the input without the last answer token, and what each position predicts."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded sequences: inputs with id 0 and attention 0, labels with -100."""

    input_ids_BT: Tensor
    attention_BT: Tensor
    labels_BT: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(*(t.to(device, non_blocking=True) for t in (self.input_ids_BT, self.attention_BT, self.labels_BT)))


@dataclass(frozen=True, slots=True)
class StepBatches:
    """The micro-batches of one sequential step, each kind sorted and cut on its own."""

    edit: list[Batch]
    rephrase: list[Batch]
    unrelated: list[Batch]


@lru_cache(maxsize=8)
def special_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text (BOS or none); what it would append is left out."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    return ()


def tokenize(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
    """Tokenize (prompt, answer) pairs: the prompt, then " " + answer, apart.

    Raises:
        DataError: a prompt or an answer without any token.
    """
    if not pairs:
        return []
    prefix = list(special_prefix(tokenizer))
    prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    answers = tokenizer([" " + answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    rows = []
    for (prompt, answer), prompt_ids, answer_ids in zip(pairs, prompts, answers, strict=True):
        prompt_ids = prefix + prompt_ids
        if not prompt_ids or not answer_ids:
            empty = f"prompt {prompt!r}" if not prompt_ids else f"answer {answer!r}"
            raise DataError(f"{empty} has no token in this model's tokenizer")
        rows.append(Tokens(prompt_ids + answer_ids[:-1], [IGNORED] * (len(prompt_ids) - 1) + answer_ids))
    return rows


def context_check(tokenizer: PreTrainedTokenizerBase, context: int | None) -> Fits:
    """A check that every prompt of an edit has tokens for its answer and fits the model's context."""

    def check(edits: Sequence[Edit]) -> list[DataError | None]:
        answers = {text for edit in edits for _, text in _pairs(edit)}
        ids = tokenizer([" " + answer for answer in answers], add_special_tokens=False)["input_ids"] if answers else []
        empty = {answer for answer, tokens in zip(answers, ids, strict=True) if not tokens}
        return [_complaint(tokenizer, edit, context, empty) for edit in edits]

    return check


def _pairs(edit: Edit) -> list[tuple[str, str]]:
    pairs = [(edit.prompt, edit.answer), (edit.rephrase, edit.answer), (edit.unrelated, edit.unrelated_answer)]
    pairs += [(edit.persona, edit.answer)] if edit.persona is not None else []
    return pairs + ([(edit.mhop, edit.mhop_answer)] if edit.mhop is not None and edit.mhop_answer is not None else [])


def _complaint(
    tokenizer: PreTrainedTokenizerBase, edit: Edit, context: int | None, empty: set[str]
) -> DataError | None:
    for prompt, answer in _pairs(edit):
        if answer in empty:
            return DataError(f"{place(edit.row)}: answer {shown(answer)} has no token in this model's tokenizer")
        # a token stands for at least one byte, so most prompts need no tokenizing to be known to fit
        if context is None or len(prompt.encode()) + len(answer.encode()) < context:
            continue
        length = len(tokenize(tokenizer, [(prompt, answer)])[0].input_ids)
        if length > context:
            return DataError(
                f"{place(edit.row)}: prompt {shown(prompt)} has {length} tokens with its answer; "
                f"the model's context is {context}"
            )
    return None


def pad(rows: Sequence[Tokens]) -> Batch:
    """One batch of the rows in their order."""
    longest = max(len(row.input_ids) for row in rows)
    lengths = [longest - len(row.input_ids) for row in rows]
    return Batch(
        torch.tensor([row.input_ids + [0] * gap for row, gap in zip(rows, lengths, strict=True)]),
        torch.tensor([[1] * len(row.input_ids) + [0] * gap for row, gap in zip(rows, lengths, strict=True)]),
        torch.tensor([row.labels + [IGNORED] * gap for row, gap in zip(rows, lengths, strict=True)]),
    )


def micro_batches(rows: Sequence[Tokens], size: int) -> list[Batch]:
    """Sort by length, longest first (stable), and cut into micro-batches of `size`."""
    ordered = sorted(rows, key=lambda row: -len(row.input_ids))
    return [pad(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def step_batches(tokenizer: PreTrainedTokenizerBase, edits: Sequence[Edit], size: int) -> StepBatches:
    """The micro-batches of one step's edits."""
    kinds = (
        [(edit.prompt, edit.answer) for edit in edits],
        [(edit.rephrase, edit.answer) for edit in edits],
        [(edit.unrelated, edit.unrelated_answer) for edit in edits],
    )
    return StepBatches(*(micro_batches(tokenize(tokenizer, pairs), size) for pairs in kinds))


def steps(edits: Iterator[Edit], n_edits: int) -> Iterator[list[Edit]]:
    """Cut a stream of edits into the lists that one sequential step writes; an incomplete last one is dropped."""
    step: list[Edit] = []
    for edit in edits:
        step.append(edit)
        if len(step) == n_edits:
            yield step
            step = []
