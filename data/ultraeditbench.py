"""UltraEditBench: a question, its answer, the question asked differently, and an unrelated question."""

from __future__ import annotations

from typing import Any

from .base import Edit, text


def read_row(row: dict[str, Any], index: int, seed: int) -> Edit:
    """An ultraeditbench row as an edit. Raises DataError."""
    return Edit(
        row=index,
        prompt=text(row, "prompt", index),
        answer=text(row, "ans", index),
        rephrase=text(row, "rephrase_prompt", index),
        unrelated=text(row, "loc", index),
        unrelated_answer=text(row, "loc_ans", index),
    )
