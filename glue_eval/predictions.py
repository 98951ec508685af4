"""From a row to tokens, from scores to predictions, the two readings of each question, and to a task's figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.base import DataError, place
from data.batches import special_prefix
from files import finite
from glue_eval.rows import TaskRows
from glue_eval.tasks import INVALID, Row, Task, likelihood_choice, read_answer, render_question, render_shot
from report.metrics import interval

NEW_TOKENS = 5
AVERAGED = ("f1", "f1_new", "mcc", "accuracy", "accuracy_new")


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


@dataclass(frozen=True, slots=True)
class Scored:
    """The tokens generated after a prompt, and the mean log probability of each choice's tokens."""

    new_tokens: list[int]
    log_probs: list[float]


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
        wholes = [encode(tokenizer, f"{text} {choice}") for choice in task.choices]
        if context is None or max(len(prompt) + NEW_TOKENS, *map(len, wholes)) <= context:
            return Question(row, text, prompt, [_choice(prompt, whole) for whole in wholes])
    return None


def _choice(prompt: list[int], whole: list[int]) -> Choice:
    shared = min(common_length([prompt, whole]), len(whole) - 1)
    return Choice(shared, whole[shared:])


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences start with."""
    columns = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def encode_tests(
    task: Task, rows: TaskRows, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[list[Question], list[int]]:
    """The tests that fit the model's context, and the rows (counted from 0) of those that do not."""
    context = context_length(config)
    fitted = {row.index: fit_question(task, row, rows.shots, tokenizer, context) for row in rows.tests}
    too_long = [index for index, question in fitted.items() if question is None]
    return [question for question in fitted.values() if question is not None], too_long


def predict(
    task: Task, questions: Sequence[Question], scores: Sequence[Scored], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, Any]]:
    """Read the generated texts and compare the likelihoods: each question's line in the JSONL.

    `answer` and `choice` are labels; a probability that is not finite is null.
    """

    def decoded(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    found = []
    for question, scored in zip(questions, scores, strict=True):
        # the new text where it stands: some tokenizers drop a space at the start of a text
        text = decoded(question.prompt + scored.new_tokens)[len(decoded(question.prompt)) :]
        probabilities = [math.exp(mean) for mean in scored.log_probs]
        label, answer = question.row.label, read_answer(task, question.text, text)
        choice = likelihood_choice(probabilities)
        record = {
            "row": question.row.index,
            "prompt": question.text,
            "generated_text": text,
            "answer": answer,
            "choice": choice,
            "highest_probability_answer": task.choices[choice] if choice >= 0 else None,
            "probabilities": finite(dict(zip(task.choices, probabilities, strict=True))),
            "label": label,
            "correct": answer == label,
            "correct_new": choice == label,
        }
        found.append(record)
    return found


def figures(
    labels: Sequence[int], answers: Sequence[int], choices: Sequence[int], glue_flipped: bool = False
) -> dict[str, float | None]:
    """The figures over a task's examples; without any example the counts are 0 and the rest is None.

    `answers` are read from the generated text (INVALID where no rule matched; an invalid answer counts in
    the total only), `choices` from the likelihoods: names that end in _new are theirs. `glue_flipped` adds
    the F1 in GLUE's own labels, which are one less the published scorer's.
    """
    invalid = sum(answer == INVALID for answer in answers)
    found = _told(labels, answers, "") | {"invalid": invalid, "mcc": _mcc(labels, answers)}
    found |= {"incorrect": sum(a not in (y, INVALID) for a, y in zip(answers, labels, strict=True))}
    if glue_flipped:
        flipped = [[p if p == INVALID else 1 - p for p in predictions] for predictions in (answers, choices)]
        found |= {"f1_glue": _f1(labels, flipped[0]), "f1_new_glue": _f1(labels, flipped[1])}
    return found | choice_figures(labels, choices)


def choice_figures(labels: Sequence[int], choices: Sequence[int]) -> dict[str, float | None]:
    """The figures of the likelihood choices alone."""
    return _told(labels, choices, "_new") | {"total": len(labels)}


def averages(results: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The mean over tasks of each averaged figure, over the tasks that have it."""
    columns = {name: [value for r in results if (value := r.get(name)) is not None] for name in AVERAGED}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def _told(labels: Sequence[int], predictions: Sequence[int], end: str) -> dict[str, float | None]:
    """What both readings are told by: of accuracy the standard error of a share, sqrt(p (1 - p) / (n - 1)), and
    Wilson's 95 % interval."""
    total, hit = len(labels), sum(p == y for p, y in zip(predictions, labels, strict=True))
    share = hit / total if total else None
    error = None if share is None else math.sqrt(share * (1 - share) / max(1, total - 1))
    found = {"correct": hit, "incorrect": total - hit, "f1": _f1(labels, predictions), "accuracy": share}
    low, high = (None, None) if share is None else interval(share, total)
    bounds = {f"accuracy{end}_low": low, f"accuracy{end}_high": high, f"accuracy{end}_stderr": error}
    return {name + end: value for name, value in found.items()} | bounds


def _f1(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Mean of the classes' F1, weighted by how often a class is a label."""
    from sklearn.metrics import f1_score  # 0.8 s that a run without downstream tasks need not wait

    return float(f1_score(labels, predictions, average="weighted", zero_division=0)) if labels else None


def _mcc(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Matthews correlation, an invalid answer being a class of its own; 0 where it is not defined."""
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn warns where labels and predictions hold one class; 0 is then the published figure
    with warnings.catch_warnings(action="ignore"):
        return float(matthews_corrcoef(labels, predictions)) if labels else None
