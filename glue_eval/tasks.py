"""The downstream tasks as data: prompt, choices, how a generated answer is read, file, label (docs/design.md, 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from data.base import DataError, as_text, place, shown, text

INVALID = -1
PERPLEXITY = "perplexity"


@dataclass(frozen=True, slots=True)
class Task:
    """One task. A label is an index into `choices`.

    `question` names the fields of a row, {choices[0]} one that holds a string per choice. `labels[i]` is how the
    file writes label i. `rules` are (substring, label), the first that matches wins, without any the choices, the
    last first; they read the text after the last `after`, or only the new text where `after` is None.
    `glue_flipped` marks a task whose published scorer reads GLUE's labels the wrong way round.
    """

    file: str
    question: str
    choices: tuple[str, ...]
    rules: tuple[tuple[str, int], ...] = ()
    label_field: str = "label"
    labels: tuple[str, ...] = ("0", "1")
    after: str | None = None
    shot: str | None = None
    shot_end: str = " {choice}\n"
    glue_flipped: bool = False
    version: int = 1


LETTERS = (("a\n", 0), ("b\n", 1), ("c\n", 2), ("d\n", 3))

TASKS = {
    "sst": Task(
        file="sst2.jsonl",
        question="Review :{sentence}\nSentiment :",
        shot="Review : {sentence}\nSentiment : {choice}\n",
        choices=("negative", "positive"),
        after="Sentiment :",
    ),
    "mrpc": Task(
        file="mrpc.jsonl",
        question=(
            "Are the sentences paraphrases of each other.\nSentence 1: {sentence1}\nSentence 2: {sentence2}\nAnswer:"
        ),
        choices=("No", "Yes"),
        after="Answer:",
    ),
    "cola": Task(
        file="cola.jsonl",
        question="Is this sentence linguistically acceptable?\nSentence: {sentence}\nAnswer: ",
        shot_end="{choice}\n",
        choices=("No", "Yes"),
        after="Answer:",
    ),
    "rte": Task(
        file="rte.jsonl",
        question="{sentence1}\nquestion: {sentence2} True or False?\nanswer:",
        choices=("False", "True"),
        rules=(("false", 0), ("true", 1)),
        after="answer:",
        glue_flipped=True,
    ),
    "mmlu": Task(
        file="mmlu.jsonl",
        question=(
            "Question: {question}\n(A) {choices[0]}\n(B) {choices[1]}\n(C) {choices[2]}\n(D) {choices[3]}\nAnswer:"
        ),
        choices=("A", "B", "C", "D"),
        label_field="answer",
        labels=("0", "1", "2", "3"),
        rules=LETTERS,
    ),
    "nli": Task(
        file="nli.jsonl",
        question="{sentence1} entails the {sentence2} True or False? Answer:",
        choices=("False", "True"),
        labels=("not_entailment", "entailment"),
        after="True or False? Answer:",
    ),
    "sentiment_analysis": Task(
        file="sentiment_analysis.jsonl",
        question=(
            "For each snippet of text,label the sentiment of the text as positive or negative."
            "The answer should be exact 'positive' or 'negative'. text: {sentence} answer:"
        ),
        choices=("negative", "positive"),
        after="answer:",
    ),
    "dialogue": Task(
        file="dialogue.jsonl",
        question=(
            "Q: Given the following: {article}\nWhich choice is correct?\n"
            "(A){options[0]}\n(B){options[1]}\n(C){options[2]}\n(D){options[3]}\nAnswer:"
        ),
        shot_end=" {choice}\n\n",
        choices=("A", "B", "C", "D"),
        label_field="answers",
        labels=("A", "B", "C", "D"),
        rules=LETTERS,
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A checked row: its place in the file counted from 0, its fields, and its label."""

    index: int
    fields: Mapping[str, Any]
    label: int


def read_row(task: Task, raw: Mapping[str, Any], index: int) -> Row:
    """Check the fields that the question names, and the label.

    Raises:
        DataError: a field that is missing, empty or of another type, or a label outside the choices.
    """
    fields: dict[str, Any] = {}
    for _, named, _, _ in Formatter().parse(task.question):
        name, part, _ = (named or "").partition("[")
        if name and name not in fields:
            fields[name] = _options(task, raw, name, index) if part else text(raw, name, index)
    told, wanted = f"{place(index)}: field {task.label_field!r} is", f"it must be one of {', '.join(task.labels)}"
    if task.label_field not in raw:
        raise DataError(f"{told} missing; {wanted} (fields found: {', '.join(map(str, raw)) or 'none'})")
    label = str(raw[task.label_field])
    if label not in task.labels:
        raise DataError(f"{told} {shown(raw[task.label_field])}; {wanted}")
    return Row(index, fields, task.labels.index(label))


def _options(task: Task, raw: Mapping[str, Any], name: str, index: int) -> list[str]:
    """A field that holds a string per choice."""
    options = raw.get(name)
    if not isinstance(options, list) or len(options) != len(task.choices):
        found = shown(options) if name in raw else "missing"
        raise DataError(f"{place(index)}: field {name!r} is {found}; it must be a list of {len(task.choices)} strings")
    return [as_text(option, f"field '{name}[{at}]'", index) for at, option in enumerate(options)]


def render_question(task: Task, row: Row) -> str:
    """The text whose continuation answers the row."""
    return task.question.format_map(row.fields)


def render_shot(task: Task, row: Row) -> str:
    """The row as a solved example, put before a question."""
    template = task.shot or task.question + task.shot_end
    return template.format_map({**row.fields, "choice": task.choices[row.label]})


def read_answer(task: Task, prompt: str, generated: str) -> int:
    """The label that a generated text stands for, or INVALID where no rule matches."""
    answer = generated if task.after is None else (prompt + generated).rpartition(task.after)[2]
    rules = task.rules or [(choice.lower(), label) for label, choice in enumerate(task.choices)][::-1]
    return next((label for word, label in rules if word in answer.lower()), INVALID)


def likelihood_choice(probabilities: list[float]) -> int:
    """The label of the highest probability. A tie falls to 0 with two choices, else to INVALID."""
    count = len(probabilities)
    best = [label for label, p in enumerate(probabilities) if sum(p > other for other in probabilities) == count - 1]
    return best[0] if best else 0 if count == 2 else INVALID
