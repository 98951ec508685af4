"""From a row to tokens: shots before the question as far as they fit, and what each choice adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.base import DataError, place
from data.batches import special_prefix
from glue_eval.tasks import Row, Task, render_question, render_shot

NEW_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """The tokens of prompt + space + choice after what they share with the prompt's own tokens.

    `shared` is how many of the prompt's tokens come before `tokens`: all of them, unless the tokenizer
    merges the prompt's end with the choice.
    """

    shared: int
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Question:
    """A row ready to be scored: the prompt's text and tokens, and the choices in label order."""

    row: Row
    text: str
    prompt: list[int]
    choices: list[Choice]


def context_length(config: PretrainedConfig) -> int | None:
    """How many positions the model has, from its config; None where the config sets no limit."""
    return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a text, after what the tokenizer itself puts before one (BOS or nothing)."""
    return [*special_prefix(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]


def fit_question(
    task: Task, row: Row, shots: Sequence[Row], tokenizer: PreTrainedTokenizerBase, context: int | None
) -> Question | None:
    """The row behind as many of the first shots as fit the context; None if not even the question fits.

    Room is kept for the new tokens and for the longest choice.

    Raises:
        DataError: the prompt has no token in this tokenizer.
    """
    solved = [render_shot(task, shot) for shot in shots]
    for kept in range(len(solved), -1, -1):
        text = "".join(solved[:kept]) + render_question(task, row)
        prompt = encode(tokenizer, text)
        if not prompt:
            raise DataError(f"{place(row.index)}: the prompt {text!r} has no token in this model's tokenizer")
        if context is not None and len(prompt) + NEW_TOKENS > context:
            continue
        choices = [_choice(prompt, encode(tokenizer, f"{text} {choice}")) for choice in task.choices]
        if context is None or max(choice.shared + len(choice.tokens) for choice in choices) <= context:
            return Question(row, text, prompt, choices)
    return None


def _choice(prompt: list[int], whole: list[int]) -> Choice:
    shared = next((at for at, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    shared = min(shared, len(whole) - 1)
    return Choice(shared, whole[shared:])
