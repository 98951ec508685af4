"""From scores to predictions, the two readings of each question, and from predictions to a task's figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.metrics import f1_score, matthews_corrcoef
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from glue_eval.prompts import Question, context_length, fit_question
from glue_eval.rows import TaskRows
from glue_eval.scoring import Scored
from glue_eval.tasks import INVALID, Task, likelihood_choice, read_answer

AVERAGED = ("f1", "f1_new", "mcc", "accuracy", "accuracy_new")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says to one question: text, the label read from it, and the likeliest choice's label."""

    generated_text: str
    answer: int
    choice: int
    probabilities: list[float]


def encode_tests(
    task: Task, rows: TaskRows, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> tuple[list[Question], list[int]]:
    """The tests that fit the model's context, and the rows (counted from 0) of those that do not."""
    context = context_length(config)
    fitted = [fit_question(task, row, rows.shots, tokenizer, context) for row in rows.tests]
    too_long = [row.index for row, question in zip(rows.tests, fitted, strict=True) if question is None]
    return [question for question in fitted if question is not None], too_long


def predict(
    task: Task, questions: Sequence[Question], scores: Sequence[Scored], tokenizer: PreTrainedTokenizerBase
) -> list[Prediction]:
    """Read the generated texts and compare the likelihoods."""

    def decoded(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    found = []
    for question, scored in zip(questions, scores, strict=True):
        # the new text where it stands: some tokenizers drop a space at the start of a text
        text = decoded(question.prompt + scored.new_tokens)[len(decoded(question.prompt)) :]
        probabilities = [math.exp(mean) for mean in scored.log_probs]
        answer = read_answer(task, question.text, text)
        found.append(Prediction(text, answer, likelihood_choice(probabilities), probabilities))
    return found


def as_record(task: Task, question: Question, said: Prediction) -> dict[str, Any]:
    """One example as its line in the JSONL; `choice` and `answer` are labels, a probability may be null."""
    probabilities = [p if math.isfinite(p) else None for p in said.probabilities]
    return {
        "row": question.row.index,
        "prompt": question.text,
        "generated_text": said.generated_text,
        "answer": said.answer,
        "choice": said.choice,
        "highest_probability_answer": task.choices[said.choice] if said.choice >= 0 else None,
        "probabilities": dict(zip(task.choices, probabilities, strict=True)),
        "label": question.row.label,
        "correct": said.answer == question.row.label,
        "correct_new": said.choice == question.row.label,
    }


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
    """What both readings are told by; the standard error is that of a share, sqrt(p (1 - p) / (n - 1))."""
    total, hit = len(labels), sum(p == y for p, y in zip(predictions, labels, strict=True))
    share = hit / total if total else None
    error = None if share is None else math.sqrt(share * (1 - share) / max(1, total - 1))
    found = {"correct": hit, "incorrect": total - hit, "f1": _f1(labels, predictions), "accuracy": share}
    return {name + end: value for name, value in found.items()} | {f"accuracy{end}_stderr": error}


def _f1(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Mean of the classes' F1, weighted by how often a class is a label."""
    return float(f1_score(labels, predictions, average="weighted", zero_division=0)) if labels else None


def _mcc(labels: Sequence[int], predictions: Sequence[int]) -> float | None:
    """Matthews correlation, an invalid answer being a class of its own; 0 where it is not defined."""
    if not labels:
        return None
    with warnings.catch_warnings():
        # scikit-learn warns where labels and predictions hold one class; 0 is then the published figure
        warnings.simplefilter("ignore")
        return float(matthews_corrcoef(labels, predictions))
