"""The downstream tasks as data: prompt, choices, how a generated answer is read, file, label (docs/design.md, 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from data.base import DataError, as_text, place, shown, text

TABLE = Path(__file__).with_name("tasks.yaml")
INVALID = -1
PERPLEXITY = "perplexity"


@dataclass(frozen=True, slots=True)
class Task:
    """A row of tasks.yaml. A label is an index into `choices`.

    `question` names the fields of a row, {choices[0]} one that holds a string per choice. `labels[i]` is how the
    file writes label i. `rules` are (substring, label), the first that matches wins, without any the choices, the
    last first; they read the text after the last `after`, or only the new text where `after` is None.
    `glue_flipped` marks a task whose published scorer reads GLUE's labels the wrong way round. `hub`: the repository,
    configuration and split that the published subset was drawn from.
    """

    file: str
    question: str
    choices: Sequence[str]
    rules: Sequence[tuple[str, int]] = ()
    label_field: str = "label"
    labels: Sequence[str] = ("0", "1")
    after: str | None = None
    shot: str | None = None
    shot_end: str = " {choice}\n"
    glue_flipped: bool = False
    version: int = 1
    hub: Sequence[str] = ()


TASKS = {name: Task(**row) for name, row in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items()}


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
