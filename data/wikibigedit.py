"""WikiBigEdit: a question on a changed fact, also asked by a persona and through a second hop."""

from __future__ import annotations

from typing import Any

from .base import Edit, optional_text, text


def read_row(row: dict[str, Any], index: int, seed: int) -> Edit:
    """A wikibigedit row as an edit; the persona's question shares the answer. Raises DataError."""
    mhop, mhop_answer = optional_text(row, "mhop", index), optional_text(row, "mhop_ans", index)
    if mhop is None or mhop_answer is None:
        # As published: a row without a second hop is still asked, and scored, with the word "null".
        mhop = mhop_answer = "null"
    return Edit(
        row=index,
        prompt=text(row, "update", index),
        answer=text(row, "ans", index),
        rephrase=text(row, "rephrase", index),
        unrelated=text(row, "loc", index),
        unrelated_answer=text(row, "loc_ans", index),
        persona=text(row, "personas", index),
        mhop=mhop,
        mhop_answer=mhop_answer,
    )
