"""zsRE: a question, its answer, the question asked differently, and an unrelated question."""

from __future__ import annotations

from typing import Any

from .base import Edit, text


def read_row(row: dict[str, Any], index: int, seed: int) -> Edit:
    """A zsre row as an edit; `loc` is published without its question mark. Raises DataError."""
    return Edit(
        row=index,
        prompt=text(row, "src", index),
        answer=text(row, "ans", index),
        rephrase=text(row, "rephrase", index),
        unrelated=text(row, "loc", index) + "?",
        unrelated_answer=text(row, "loc_ans", index),
    )
