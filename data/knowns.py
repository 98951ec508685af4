"""Known facts: prompts a model completes rightly before any edit, to see what editing makes it forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base import text


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A prompt and the continuation published with it; `row` counts from 0.

    `answer` is the file's text unchanged, which may begin with a space.
    """

    row: int
    prompt: str
    answer: str


def read_row(row: dict[str, Any], index: int, seed: int) -> KnownFact:
    """A row of known_1000.json as a known fact. Raises DataError."""
    return KnownFact(row=index, prompt=text(row, "prompt", index), answer=text(row, "prediction", index))
