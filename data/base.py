"""The unit of work: one edit; the reading of a text from a row, and how messages say what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair, which no tokenizer can encode."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One fact to write, with the prompts that measure it.

    `answer` is the target of `prompt`, `rephrase` and `persona`; `unrelated` and `mhop` carry
    answers of their own. A prompt that a record does not have is None, and so is its answer.
    `row` is the record's position in its file, counted from 0.
    """

    row: int
    prompt: str
    answer: str
    rephrase: str | None
    unrelated: str | None
    unrelated_answer: str | None
    persona: str | None = None
    mhop: str | None = None
    mhop_answer: str | None = None

    def asked(self) -> dict[str, tuple[str, str]]:
        """The prompts that this edit has, by their names, each with its answer."""
        pairs = {
            "prompt": (self.prompt, self.answer),
            "rephrase": (self.rephrase, self.answer),
            "unrelated": (self.unrelated, self.unrelated_answer),
            "persona": (self.persona, self.answer),
            "mhop": (self.mhop, self.mhop_answer),
        }
        return {name: (ask, say) for name, (ask, say) in pairs.items() if ask is not None and say is not None}


class DataError(ValueError):
    """A record file or one of its rows is not what it must be; the message says what and where."""


def place(index: int) -> str:
    """How every message names a row."""
    return f"row {index} (counted from 0)"


def shown(value: object, width: int = 60) -> str:
    """`value` as it stands in a message: JSON's word for null, long values cut to `width` characters."""
    written = "null" if value is None else repr(value)
    return written if len(written) <= width else written[: width - 3] + "..."


def missing(found: Iterable[str], field: str, index: int) -> str:
    """How messages say that row number `index` has no such field, and which it has."""
    names = shown(", ".join(found), 300) if found else "none"
    return f"{place(index)}: field {field!r} is missing; it must be a non-empty string (fields found: {names})"


def text(row: Mapping[str, Any], field: str, index: int) -> str:
    """The string in `field` of row number `index`, unchanged.

    Raises DataError, naming row, field and value, unless it is a string with something in it.
    """
    if field not in row:
        raise DataError(missing(row, field, index))
    return as_text(row[field], f"field {field!r}", index)


def as_text(value: object, name: str, index: int) -> str:
    """`value` if it is a string that is not blank; `name` says in the message where it was found.

    Raises DataError for anything else, and for half a surrogate pair.
    """
    if not isinstance(value, str):
        raise DataError(f"{place(index)}: {name} is {shown(value)}; it must be a non-empty string")
    if not value or value.isspace():
        kind = "blank" if value else "empty"
        raise DataError(f"{place(index)}: {name} is {kind} ({shown(value)}); it must be a non-empty string")
    if HALF_PAIR.search(value):
        raise DataError(
            f"{place(index)}: {name} is {shown(value)}, which holds half a surrogate pair; it must be Unicode text"
        )
    return value
