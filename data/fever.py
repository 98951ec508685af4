"""FEVER: a claim to complete, several rephrasings of it, and an unrelated prompt."""

from __future__ import annotations

import random
from typing import Any

from .base import DataError, Edit, as_text, place, shown, text


def read_row(row: dict[str, Any], index: int, seed: int) -> Edit:
    """A fever row as an edit, its rephrased prompt drawn from `equiv_prompt`. Raises DataError."""
    prompt, answer = text(row, "prompt", index), text(row, "alt", index)
    rephrases = equivalents(row, index)
    # Seeded by the record itself: the same fact gets the same rephrasing wherever it stands in the file.
    draw = random.Random(f"{seed}|{prompt}|{answer}")
    return Edit(
        row=index,
        prompt=prompt,
        answer=answer,
        rephrase=draw.choice(rephrases),
        unrelated=text(row, "unrel_prompt", index),
        unrelated_answer=text(row, "unrel_ans", index),
    )


def equivalents(row: dict[str, Any], index: int) -> list[str]:
    """The rephrasings of a row; a plain string counts as the only one. Raises DataError."""
    found = row.get("equiv_prompt")
    if not isinstance(found, list):
        return [text(row, "equiv_prompt", index)]
    if not found:
        raise DataError(
            f"{place(index)}: field 'equiv_prompt' is {shown(found)}; it must list at least one rephrased prompt"
        )
    return [as_text(entry, f"field 'equiv_prompt'[{i}]", index) for i, entry in enumerate(found)]
