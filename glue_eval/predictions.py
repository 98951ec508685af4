"""From scores to predictions: the two readings of each question, and its line in the JSONL."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from glue_eval.prompts import Question, context_length, fit_question
from glue_eval.rows import TaskRows
from glue_eval.scoring import Scored
from glue_eval.tasks import Task, likelihood_choice, read_answer


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
