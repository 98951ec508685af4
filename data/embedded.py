"""Facts: the data set that ships with the project; every row has every kind of prompt."""

from __future__ import annotations

from typing import Any

from .base import Edit, text


def read_row(row: dict[str, Any], index: int, seed: int) -> Edit:
    """A row of the embedded facts as an edit. Raises DataError."""
    return Edit(
        row=index,
        prompt=text(row, "src", index),
        answer=text(row, "ans", index),
        rephrase=text(row, "rephrase", index),
        unrelated=text(row, "loc", index),
        unrelated_answer=text(row, "loc_ans", index),
        persona=text(row, "personas", index),
        mhop=text(row, "mhop", index),
        mhop_answer=text(row, "mhop_ans", index),
    )
